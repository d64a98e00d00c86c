//! What a store is asked for, what is left out, and in how many calls.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Elements that the store refuses, alone and with others, and what it has taken.
#[derive(Debug, Default)]
struct Store {
    bad: HashSet<usize>,
    taken: HashSet<usize>,
    left_out: Vec<usize>,
    calls: usize,
    /// It refuses all from this call on.
    breaks_at: Option<usize>,
    /// The elements that it was asked for alone.
    alone: HashSet<usize>,
}

impl Store {
    fn with(bad: impl IntoIterator<Item = usize>) -> Self {
        Self {
            bad: bad.into_iter().collect(),
            ..Self::default()
        }
    }

    fn take(&mut self, elements: &[usize]) -> Result<bool, StoreError> {
        self.calls += 1;
        if let [element] = elements {
            self.alone.insert(*element);
        }
        let is_broken = self.breaks_at.is_some_and(|call| self.calls >= call);
        if is_broken || elements.iter().any(|element| self.bad.contains(element)) {
            return Err(StoreErrorKind::Misconfigured.into());
        }
        for element in elements {
            assert!(self.taken.insert(*element), "{element} is written twice");
        }
        Ok(true)
    }

    /// One pass. Returns the number of its calls, and its result.
    fn pass(&mut self, portions: &mut Portions<usize>) -> (usize, Result<(), StoreError>) {
        let before = std::mem::take(&mut self.calls);
        let mut pass = portions.pass();
        while let Some(part) = pass.next() {
            let answer = self.take(&part.elements);
            pass.answered(answer, |left_out, _| self.left_out.extend(left_out));
        }
        let result = pass.end();
        (std::mem::replace(&mut self.calls, before), result)
    }

    fn lost(&self) -> Vec<usize> {
        let lost = self.left_out.iter().copied();
        lost.filter(|element| !self.bad.contains(element)).collect()
    }
}

fn portions(elements: usize) -> Portions<usize> {
    let mut portions = Portions::new(usize::MAX);
    (0..elements).for_each(|element| portions.push(element));
    portions
}

/// How often a number can be halved until it is one.
fn halvings(number: usize) -> usize {
    number.next_power_of_two().ilog2() as usize
}

#[test]
fn one_bad_element_is_left_out_by_the_pass_that_finds_it() {
    for number in (2..40).chain([999, STEP]) {
        let step = 1 + number / 40;
        for bad in (0..number).step_by(step).chain([number - 1]) {
            let (mut store, mut portions) = (Store::with([bad]), portions(number));
            let (calls, result) = store.pass(&mut portions);
            result.unwrap();
            assert!(portions.is_empty(), "{bad} of {number}: {portions:?}");
            assert_eq!(store.left_out, [bad], "of {number}");
            assert_eq!(store.taken.len(), number - 1);
            assert!(calls <= 1 + 2 * halvings(number), "{calls} for {number}");
        }
    }
}

/// It may be the store that is at fault, until that takes another one.
#[test]
fn the_only_element_is_set_aside_until_the_store_takes_another_one() {
    let (mut store, mut portions) = (Store::with([0]), portions(1));
    for _ in 0..3 {
        let (calls, result) = store.pass(&mut portions);
        assert_eq!(result.unwrap_err().kind(), StoreErrorKind::Misconfigured);
        assert_eq!((calls, portions.len(), portions.fresh()), (1, 1, 0));
    }
    portions.push(1);
    assert_eq!(portions.fresh(), 1);
    store.pass(&mut portions).1.unwrap();
    assert_eq!((store.left_out, portions.len()), (vec![0], 0));
}

#[test]
fn a_store_that_refuses_all_loses_nothing_and_is_asked_a_few_times() {
    for number in [1, 2, 3, 10, STEP] {
        let (mut store, mut portions) = (Store::with(0..number), portions(number));
        let (calls, result) = store.pass(&mut portions);
        result.unwrap_err();
        assert!(calls <= 1 + 2 * halvings(number), "{calls} for {number}");
        assert_eq!(portions.fresh(), number.saturating_sub(2));
        for _ in 0..number / 2 {
            let (calls, result) = store.pass(&mut portions);
            result.unwrap_err();
            assert!(calls <= 3, "{calls} for {number}");
        }
        // Each in its turn, so that those at the ends hide none.
        assert_eq!((store.alone.len(), portions.fresh()), (number, 0));
        assert_eq!((store.left_out.len(), portions.len()), (0, number));
        // A single one is found as quickly as ever.
        store.bad = [0].into();
        portions.push(number);
        let (calls, _) = store.pass(&mut portions);
        assert!(calls <= 4 + 2 * halvings(number), "{calls} for {number}");
        assert_eq!((store.taken.len(), portions.len()), (number, 0));
    }
}

/// It may take long to find them all: meanwhile others are claimed.
#[test]
fn a_pass_over_many_bad_elements_comes_to_an_end() {
    let bad = (0..1000).filter(|element| element % 20 == 0);
    let (mut store, mut portions) = (Store::with(bad), portions(1000));
    let mut passes = 0;
    while store.taken.len() < 950 {
        let (calls, result) = store.pass(&mut portions);
        assert!(calls <= CALLS);
        result.unwrap();
        passes += 1;
    }
    assert!((4..=50).contains(&passes), "{passes}");
    assert!(store.lost().is_empty());
}

/// As those do who write for the last time.
fn finish(store: &mut Store, portions: &mut Portions<usize>) {
    let mut left = portions.fresh();
    for _ in 0..LAST_PASSES {
        let _ = store.pass(portions);
        let before = std::mem::replace(&mut left, portions.fresh());
        if left == 0 || left >= before {
            break;
        }
    }
}

#[test]
fn good_elements_among_bad_ones_are_written_by_the_last_passes() {
    let (mut store, mut portions) = (Store::with([1, 2, 4, 6, 7, 11, 12]), portions(13));
    finish(&mut store, &mut portions);
    assert_eq!(store.taken, [0, 3, 5, 8, 9, 10].into());
}

#[test]
fn several_bad_elements_are_left_out_by_one_pass() {
    let (mut store, mut portions) = (Store::with([0, 40, 70]), portions(100));
    let (calls, result) = store.pass(&mut portions);
    result.unwrap();
    assert!(calls <= 3 * 2 * halvings(100), "{calls}");
    assert_eq!((store.left_out.len(), portions.len()), (3, 0));
}

/// What it has taken before is no evidence against many, nor what it refused before it took others.
#[test]
fn a_store_that_begins_to_refuse_all_in_a_pass_loses_hardly_any() {
    for (earlier, most) in [(0, 1), (16, 2)] {
        for (bad, breaks_at) in (0..32).flat_map(|bad| (1..40).map(move |call| (bad, call))) {
            let (mut store, mut portions) = (Store::with(0..32), portions(32));
            for _ in 0..earlier {
                store.pass(&mut portions).1.unwrap_err();
            }
            store.bad = [bad].into();
            store.breaks_at = Some(breaks_at);
            let _ = store.pass(&mut portions);
            let lost = store.lost().len();
            assert!(lost <= most, "{earlier}, {bad}, {breaks_at}: {lost}");
        }
    }
}

#[test]
fn a_store_in_trouble_is_asked_once() {
    let mut portions = portions(9);
    portions.most = 4;
    for was_asked in [false, true] {
        let mut pass = portions.pass();
        let part = pass.next().unwrap();
        assert_eq!(part.unanswered, [was_asked; 9]);
        let unavailable = Err(StoreErrorKind::Unavailable.into());
        pass.answered(unavailable, |_, _| unreachable!());
        assert!(pass.next().is_none());
        let error = pass.end().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    }
    assert_eq!((portions.len(), portions.fresh()), (9, 9));
}

/// One that comes to be in trouble in the middle of a pass has taken others before, which is no evidence.
#[test]
fn what_was_refused_before_the_store_was_in_trouble_is_kept() {
    let mut portions = portions(2);
    let mut pass = portions.pass();
    for answer in [
        Err(StoreErrorKind::Misconfigured),
        Err(StoreErrorKind::Misconfigured),
        Err(StoreErrorKind::Unavailable),
    ] {
        pass.next().unwrap();
        pass.answered(answer.map_err(Into::into), |_, _| unreachable!());
    }
    let error = pass.end().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!((portions.len(), portions.fresh()), (2, 1));
}

#[test]
fn what_was_refused_between_others_and_trouble_is_kept() {
    let mut portions = portions(4);
    let mut pass = portions.pass();
    for answer in [
        Err(StoreErrorKind::Misconfigured),
        Ok(true),
        Err(StoreErrorKind::Misconfigured),
        Err(StoreErrorKind::Misconfigured),
        Err(StoreErrorKind::Unavailable),
    ] {
        pass.next().unwrap();
        pass.answered(answer.map_err(Into::into), |_, _| unreachable!());
    }
    pass.end().unwrap_err();
    assert_eq!((portions.len(), portions.fresh()), (2, 1));
}

#[test]
fn an_element_that_cannot_be_read_is_left_out_alone() {
    let mut portions = portions(1);
    let mut left_out = Vec::new();
    let mut pass = portions.pass();
    pass.next().unwrap();
    pass.answered(Err(StoreErrorKind::Corrupt.into()), |elements, error| {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        left_out.extend(elements);
    });
    pass.end().unwrap();
    assert_eq!((left_out, portions.len()), (vec![0], 0));
}

/// A store that can read nothing at all loses few.
#[test]
fn unreadable_elements_are_left_out_two_at_a_time_while_the_store_takes_none() {
    let mut portions = portions(100);
    let mut left_out = Vec::new();
    let mut pass = portions.pass();
    while pass.next().is_some() {
        let corrupt = Err(StoreErrorKind::Corrupt.into());
        pass.answered(corrupt, |elements, _| left_out.extend(elements));
    }
    pass.end().unwrap_err();
    left_out.sort_unstable();
    assert_eq!(left_out, [0, 99]);
}

/// A token that is lost, say: the store has changed nothing.
#[test]
fn an_answer_that_shows_nothing_is_no_evidence() {
    let mut portions = portions(2);
    let mut pass = portions.pass();
    pass.next().unwrap();
    let refused = || Err(StoreErrorKind::Misconfigured.into());
    pass.answered(refused(), |_, _| unreachable!());
    assert_eq!(pass.next().unwrap().elements, [1]);
    pass.answered(refused(), |_, _| unreachable!());
    assert_eq!(pass.next().unwrap().elements, [0]);
    pass.answered(Ok(false), |_, _| unreachable!());
    let error = pass.end().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    assert_eq!((portions.len(), portions.fresh()), (1, 0));
    assert!(portions.is_refused());
}

/// Rows are postponed, say, and none can be finished. Else each pass would have as many calls as it may.
#[test]
fn answers_that_show_nothing_do_not_prolong_a_pass() {
    let mut portions = portions(100);
    let mut pass = portions.pass();
    while let Some(part) = pass.next() {
        let is_refused = part.elements.iter().any(|element| element % 2 == 1);
        let answer = match is_refused {
            true => Err(StoreErrorKind::Misconfigured.into()),
            false => Ok(false),
        };
        pass.answered(answer, |_, _| unreachable!());
    }
    pass.end().unwrap_err();
    let aside = portions.len() - portions.fresh();
    assert!((2..=3).contains(&aside), "{aside}");
}

#[test]
fn no_portion_is_larger_than_a_step() {
    for (was_refused, sizes) in [
        (false, vec![STEP, 1, STEP]),
        (true, vec![1, 1, STEP, STEP - 1]),
    ] {
        let mut portions = portions(2 * STEP + 1);
        portions.is_refused = was_refused;
        let (mut asked, mut pass) = (Vec::new(), portions.pass());
        while let Some(part) = pass.next() {
            asked.push(part.elements.len());
            pass.answered(Ok(true), |_, _| {});
        }
        pass.end().unwrap();
        assert_eq!(asked, sizes);
        assert!(portions.is_empty());
    }
}

/// The newest is asked for before the old ones are through.
#[test]
fn old_bad_elements_do_not_keep_newer_ones() {
    let (mut store, mut portions) = (Store::with(0..100), portions(101));
    store.pass(&mut portions).1.unwrap();
    assert!(store.taken.contains(&100));
    for new in 101..160 {
        portions.push(new);
        let (calls, _) = store.pass(&mut portions);
        assert!(calls <= CALLS);
        assert!(store.taken.contains(&new), "{new}");
    }
    // Each that is taken shows of some others that the store is not at fault.
    assert!(store.lost().is_empty());
    assert_eq!(portions.len(), 0);
}

#[test]
fn a_call_that_was_dropped_leaves_its_elements_unanswered() {
    let mut portions = portions(3);
    drop(portions.pass().next().unwrap());
    portions.push(3);
    let asked = [true, true, true, false];
    let mut pass = portions.pass();
    assert_eq!(pass.next().unwrap().unanswered, asked);
    // Withdrawn or refused, the call has changed nothing.
    pass.withdraw();
    let mut pass = portions.pass();
    assert_eq!(pass.next().unwrap().unanswered, asked);
    pass.answered(Err(StoreErrorKind::Misconfigured.into()), |_, _| {});
    let new = pass.next().unwrap();
    assert_eq!(
        (new.elements, new.unanswered),
        (vec![2, 3], vec![true, false])
    );
    pass.answered(Ok(true), |_, _| {});
    let old = pass.next().unwrap();
    assert_eq!((old.elements, old.unanswered), (vec![0, 1], vec![true; 2]));
    drop(pass);
    assert_eq!(portions.to_vec(), [0, 1]);
    assert_eq!(portions.pass().next().unwrap().unanswered, [true; 2]);
}

#[test]
fn no_more_than_the_limit_is_kept_while_the_store_takes_none() {
    let (mut store, mut portions) = (Store::with(0..usize::from(u8::MAX)), Portions::new(20));
    for element in 0..100 {
        portions.push(element);
        store.pass(&mut portions).1.unwrap_err();
        assert_eq!(portions.len(), 20.min(element + 1));
    }
    assert_eq!(store.left_out.len(), 80);
    // It takes some.
    let (mut store, mut portions) = (Store::with([0, 1]), Portions::new(1));
    (0..4).for_each(|element| portions.push(element));
    store.pass(&mut portions).1.unwrap();
    assert_eq!((store.left_out.len(), portions.len()), (0, 2));
}

proptest! {
    /// Up to a fifth of them is refused.
    #[test]
    fn the_last_passes_write_all_that_is_good(
        number in 1..200_usize,
        bad in prop::collection::hash_set(0..200_usize, 0..20),
    ) {
        let (mut store, mut portions) = (Store::with(bad), portions(number.max(100)));
        finish(&mut store, &mut portions);
        prop_assert_eq!(portions.fresh(), 0);
        for element in 0..number.max(100) {
            prop_assert_eq!(store.taken.contains(&element), !store.bad.contains(&element));
        }
    }

    /// The store works, and from a call on, or from the beginning, it refuses all. Then it works again.
    #[test]
    fn nothing_good_is_lost_and_no_pass_has_many_calls(
        number in 1..200_usize,
        bad in prop::collection::hash_set(0..200_usize, 0..150),
        breaks in prop::collection::vec(prop::option::weighted(0.3, 1..30_usize), 0..20),
    ) {
        let (mut store, mut portions) = (Store::with(bad), portions(number));
        for breaks_at in breaks {
            let lost = store.lost().len();
            store.breaks_at = breaks_at;
            let (calls, _) = store.pass(&mut portions);
            prop_assert!(calls <= CALLS);
            // The last ones of a pass in which the store had taken others.
            let most = if breaks_at.is_some_and(|at| at > 1) { 2 } else { 0 };
            prop_assert!(store.lost().len() <= lost + most);
        }
        let lost = store.lost();
        store.breaks_at = None;
        for _ in 0..=number {
            let (calls, _) = store.pass(&mut portions);
            prop_assert!(calls <= CALLS);
        }
        prop_assert_eq!(store.lost(), lost.clone());
        for element in 0..number {
            let is_written = store.taken.contains(&element);
            prop_assert_eq!(is_written, !store.bad.contains(&element) && !lost.contains(&element));
        }
        let left: HashSet<_> = portions.to_vec().into_iter().collect();
        prop_assert_eq!(left.len(), portions.len());
        prop_assert!(left.is_subset(&store.bad));
    }
}
