//! What a store is given in portions, so that an element which it refuses keeps no other from being written. No I/O, no clock.
//!
//! The rule:
//!
//! 1. A pass asks for all elements in portions of at most [`STEP`], from the oldest and from the newest in turns.
//! 2. A portion that the store refuses is divided into halves. After a pass without evidence (4.), the oldest and the newest
//!    element are asked for alone first.
//! 3. An error that is [trouble](is_trouble) of the store is about no element. It ends the pass.
//! 4. An element that is refused alone is left out once the store takes another one: this is the evidence that it works.
//! 5. Without evidence it is set aside: it is asked for again by each pass, and other elements are asked for alone before it.
//! 6. A pass ends early once both ends are refused alone, or, after evidence, any two, or after [`CALLS`].
//! 7. An element that is unreadable is left out at once. So are the first ones beyond a limit, by a refused pass without evidence.

use std::collections::VecDeque;
use std::ops::Range;

use crate::store::{STEP, StoreError, StoreErrorKind};

/// The most calls of one pass. Each element that is refused alone costs two for each halving of their number.
const CALLS: usize = 64;
/// The most passes of those who write for the last time: one pass leaves some of many that are refused.
pub(super) const LAST_PASSES: usize = 32;

/// Elements to be written, the oldest first.
#[derive(Debug)]
pub(super) struct Portions<T> {
    /// Those that are set aside are in the middle: the oldest and the newest of the others are asked alone first.
    elements: Vec<Element<T>>,
    /// The most elements that are kept while the store refuses them.
    most: usize,
    /// Whether the last pass left some, without evidence that the store works.
    is_refused: bool,
}

#[derive(Debug)]
struct Element<T> {
    of: T,
    /// Whether it may be written already: a call with it ended without an answer.
    is_unanswered: bool,
    /// Whether the store has refused it alone.
    is_aside: bool,
}

/// The elements of one call.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) elements: Vec<T>,
    /// Whether each may have been written by an earlier call, which ended without an answer.
    pub(super) unanswered: Vec<bool>,
}

/// Asks a store to take elements. If it is dropped, what was not taken is left for the next pass.
#[derive(Debug)]
pub(super) struct Pass<'a, T> {
    of: &'a mut Portions<T>,
    /// The sizes of the portions between the elements that were refused alone at both ends.
    portions: VecDeque<usize>,
    /// The errors of the elements that were refused alone since the last evidence: the first and the last ones of all.
    front: Vec<StoreError>,
    back: Vec<StoreError>,
    /// Whether the next portion is the last one, and not the first one.
    is_at_back: bool,
    /// How many elements were refused alone at the front and at the back since the last evidence.
    refused_at: [usize; 2],
    /// Whether elements of the portion that is asked for were unanswered before.
    unanswered: Vec<bool>,
    calls: usize,
    /// Whether the store has taken something that shows that it works.
    has_evidence: bool,
    /// The first refusal, or the error of a store in trouble.
    error: Option<StoreError>,
    is_over: bool,
}

impl<T: Clone> Portions<T> {
    /// No elements. More than `most` are not kept while the store refuses them.
    pub(super) const fn new(most: usize) -> Self {
        Self {
            elements: Vec::new(),
            most,
            is_refused: false,
        }
    }

    pub(super) fn push(&mut self, of: T) {
        self.elements.push(Element {
            of,
            is_unanswered: false,
            is_aside: false,
        });
    }

    pub(super) const fn len(&self) -> usize {
        self.elements.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The number of elements that are not set aside.
    pub(super) fn fresh(&self) -> usize {
        let fresh = self.elements.iter().filter(|element| !element.is_aside);
        fresh.count()
    }

    /// Whether the last pass left some, without evidence that the store works.
    pub(super) const fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(super) fn to_vec(&self) -> Vec<T> {
        let elements = self.elements.iter();
        elements.map(|element| element.of.clone()).collect()
    }

    /// Forgets all elements: they were written in another way.
    pub(super) fn clear(&mut self) {
        self.elements.clear();
    }

    /// Begins to ask for all of them.
    pub(super) fn pass(&mut self) -> Pass<'_, T> {
        let all = self.elements.len();
        // Most likely a store that has refused all does so again, and the elements at both ends tell.
        let ends = if self.is_refused { all.min(2) } else { 0 };
        let inner = all - ends;
        let begins = (0..inner).step_by(STEP);
        let mut portions: VecDeque<_> = begins.map(|begin| STEP.min(inner - begin)).collect();
        if ends > 0 {
            portions.push_front(1);
        }
        if ends > 1 {
            portions.push_back(1);
        }
        Pass {
            of: self,
            portions,
            front: Vec::new(),
            back: Vec::new(),
            is_at_back: false,
            refused_at: [0; 2],
            unanswered: Vec::new(),
            calls: 0,
            has_evidence: false,
            error: None,
            is_over: all == 0,
        }
    }
}

impl<T: Clone> Pass<'_, T> {
    /// The elements of the next call, to be followed by [`answered`](Self::answered). If the call is dropped instead, they
    /// count as unanswered.
    pub(super) fn next(&mut self) -> Option<Part<T>> {
        let range = self.range().filter(|_| !self.is_over)?;
        self.calls += 1;
        let mut part = Part {
            elements: Vec::with_capacity(range.len()),
            unanswered: Vec::with_capacity(range.len()),
        };
        for element in &mut self.of.elements[range] {
            part.elements.push(element.of.clone());
            part.unanswered.push(element.is_unanswered);
            element.is_unanswered = true;
        }
        self.unanswered.clone_from(&part.unanswered);
        Some(part)
    }

    /// Records the answer to the last call: whether the store took something that shows that it works, or why it refused all.
    /// Elements that are given up are passed to `left_out`, with the reason.
    pub(super) fn answered(
        &mut self,
        answer: Result<bool, StoreError>,
        mut left_out: impl FnMut(Vec<T>, &StoreError),
    ) {
        let Some(range) = self.range() else { return };
        match answer {
            Ok(is_evidence) => {
                drop(self.of.elements.drain(range));
                self.pop();
                if is_evidence {
                    self.has_evidence = true;
                    self.refused_at = [0; 2];
                    self.leave_out(&mut left_out);
                }
            }
            Err(error) if is_trouble(&error) => {
                self.error = Some(error);
                self.is_over = true;
            }
            Err(error) => {
                self.withdraw();
                self.pop();
                match range.len() {
                    1 => self.refused_alone(range.start, error, &mut left_out),
                    number => {
                        self.divide(number);
                        self.error.get_or_insert(error);
                    }
                }
            }
        }
        self.is_at_back = !self.is_at_back;
        self.is_over |= self.portions.is_empty() || self.seems_refused() || self.calls >= CALLS;
        if self.is_over {
            self.close(left_out);
        }
    }

    /// Takes back the last call: it changed nothing, and its answer says nothing of its elements.
    pub(super) fn withdraw(&mut self) {
        let Some(range) = self.range() else { return };
        let elements = self.of.elements[range].iter_mut();
        for (element, is_unanswered) in elements.zip(self.unanswered.drain(..)) {
            element.is_unanswered = is_unanswered;
        }
    }

    /// The result of the pass: an error if the store is in trouble, or if elements are left without evidence that it works.
    pub(super) fn end(self) -> Result<(), StoreError> {
        match self.error {
            Some(error) if is_trouble(&error) => Err(error),
            Some(error) if !self.has_evidence && !self.of.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// The place of the portion that is asked for.
    fn range(&self) -> Option<Range<usize>> {
        if self.is_at_back {
            let end = self.of.elements.len() - self.back.len();
            Some(end - self.portions.back()?..end)
        } else {
            let start = self.front.len();
            Some(start..start + self.portions.front()?)
        }
    }

    fn pop(&mut self) {
        match self.is_at_back {
            true => self.portions.pop_back(),
            false => self.portions.pop_front(),
        };
    }

    /// Divides the portion that was asked for. The parts are asked for from the same end.
    fn divide(&mut self, number: usize) {
        let older = number / 2;
        let newer = number - older;
        if self.is_at_back {
            self.portions.extend([older, newer]);
        } else {
            self.portions.push_front(newer);
            self.portions.push_front(older);
        }
    }

    fn refused_alone(
        &mut self,
        place: usize,
        error: StoreError,
        left_out: &mut impl FnMut(Vec<T>, &StoreError),
    ) {
        self.refused_at[usize::from(self.is_at_back)] += 1;
        // Its own row is unreadable, or it was refused alone both before and after others were taken. That is evidence enough.
        let is_at_fault = error.kind() == StoreErrorKind::Corrupt
            || (self.has_evidence && self.of.elements[place].is_aside);
        if is_at_fault {
            let element = self.of.elements.remove(place);
            left_out(vec![element.of], &error);
            self.error.get_or_insert(error);
        } else if self.is_at_back {
            self.back.insert(0, error);
        } else {
            self.front.push(error);
        }
    }

    /// Whether the store seems to refuse all by now: the oldest and the newest, or two after it has taken others.
    fn seems_refused(&self) -> bool {
        match self.refused_at {
            [0, 0] => false,
            [front, back] if self.has_evidence => front + back > 1,
            [front, back] => front.min(back) > 0,
        }
    }

    /// Leaves out the elements that were refused alone.
    fn leave_out(&mut self, left_out: &mut impl FnMut(Vec<T>, &StoreError)) {
        let behind = self.of.elements.len() - self.back.len();
        let back = self.of.elements.split_off(behind);
        let front = self.of.elements.drain(..self.front.len());
        let errors = self.front.drain(..).chain(self.back.drain(..));
        for (element, error) in front.chain(back).zip(errors) {
            left_out(vec![element.of], &error);
        }
    }

    /// Ends the pass.
    fn close(&mut self, mut left_out: impl FnMut(Vec<T>, &StoreError)) {
        let is_trouble = self.error.as_ref().is_some_and(is_trouble);
        // With two of them the store may have begun to refuse all.
        if self.has_evidence && !is_trouble && self.front.len() + self.back.len() == 1 {
            self.leave_out(&mut left_out);
        }
        self.set_aside();
        if is_trouble {
            return;
        }
        self.of.is_refused = !self.has_evidence && !self.of.is_empty();
        let excess = self.of.elements.len().saturating_sub(self.of.most);
        if let Some(error) = self.error.as_ref().filter(|_| self.of.is_refused)
            && excess > 0
        {
            let excess = self.of.elements.drain(..excess);
            left_out(excess.map(|element| element.of).collect(), error);
        }
    }

    /// Moves the elements that were refused alone, now or by earlier passes, to the middle: others are tried alone by the next
    /// pass. The new ones come to the middle of those, which are tried in turns once there are no others.
    fn set_aside(&mut self) {
        let behind = self.of.elements.len() - self.back.len();
        let back = self.of.elements.split_off(behind);
        let front: Vec<_> = self.of.elements.drain(..self.front.len()).collect();
        let new = front.into_iter().chain(back).map(|element| Element {
            is_aside: true,
            ..element
        });
        let (mut aside, fresh): (Vec<_>, Vec<_>) = std::mem::take(&mut self.of.elements)
            .into_iter()
            .partition(|element| element.is_aside);
        self.of.elements = fresh;
        let middle = aside.len() / 2;
        aside.splice(middle..middle, new);
        let middle = self.of.elements.len() / 2;
        self.of.elements.splice(middle..middle, aside);
        let mut errors = self.front.drain(..).chain(self.back.drain(..));
        if self.error.is_none() {
            self.error = errors.next();
        }
    }
}

/// Whether an error is about no element: the store is out of reach, and each call is in vain.
pub(super) fn is_trouble(error: &StoreError) -> bool {
    error.kind() == StoreErrorKind::Unavailable
}

#[cfg(test)]
#[path = "portions_tests.rs"]
mod tests;
