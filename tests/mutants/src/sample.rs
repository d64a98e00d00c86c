//! Draws mutants of sets that are too large to judge whole, and says how far what they show may be from the truth.

use std::collections::BTreeSet;

use crate::places::Mutant;
use crate::sets::Group;

/// The seed of samples that are to be compared.
pub const SEED: u64 = 1;

/// How many mutants are drawn of each set.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub size: usize,
    pub seed: u64,
}

impl Sample {
    /// The mutants of a set in the order in which they are drawn. Each has its place by its name alone: mutants that come and
    /// go elsewhere do not change who is drawn.
    fn order(self, mutants: &[Mutant], group: &Group) -> Vec<usize> {
        let places = mutants.iter().enumerate();
        let places = places.filter(|(_, mutant)| group.has(&mutant.file));
        let mut ranked: Vec<_> = places
            .map(|(place, mutant)| (self.rank(mutant), place))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, place)| place).collect()
    }

    /// FNV-1a of the name, whose octets are then spread over all bits as SplitMix64 does it: the same on every machine and
    /// with every compiler, which the hashes of the standard library do not promise.
    fn rank(self, mutant: &Mutant) -> u64 {
        let (file, text) = mutant.key();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for octet in file.bytes().chain([0]).chain(text.bytes()) {
            hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut mixed = hash.wrapping_add(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Those of a set that are built: more than are judged, as some do not compile.
    pub fn built(self, mutants: &[Mutant], group: &Group) -> Vec<usize> {
        let order = self.order(mutants, group).into_iter();
        order.take(self.size + self.size / 2 + 10).collect()
    }

    /// Those of a set that are judged: the first of those that compile.
    pub fn drawn(
        self,
        mutants: &[Mutant],
        group: &Group,
        compiling: &BTreeSet<usize>,
    ) -> Vec<usize> {
        let built = self.built(mutants, group).into_iter();
        let compiling = built.filter(|place| compiling.contains(place));
        compiling.take(self.size).collect()
    }
}

/// Wilson's interval, which holds the share of the whole set in 95 of 100 samples. It takes the set for endless, and is a little too
/// wide for one that is not.
pub fn interval(caught: usize, judged: usize) -> (f64, f64) {
    const Z: f64 = 1.96;
    if judged == 0 {
        return (0.0, 1.0);
    }
    let number = judged as f64;
    let share = caught as f64 / number;
    let scale = 1.0 + Z * Z / number;
    let middle = (share + Z * Z / (2.0 * number)) / scale;
    let spread = (share * (1.0 - share) / number + Z * Z / (4.0 * number * number)).sqrt();
    let half = Z * spread / scale;
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutants(names: impl Iterator<Item = usize>) -> Vec<Mutant> {
        names
            .map(|name| Mutant {
                file: if name % 2 == 0 { "a.rs" } else { "b.rs" }.to_owned(),
                line: name,
                function: format!("f{}", name / 10),
                text: format!("`{name}`: is {}", name + 1),
            })
            .collect()
    }

    fn group(files: &[&str]) -> Group {
        Group {
            name: "g".to_owned(),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            sample: None,
        }
    }

    fn names(mutants: &[Mutant], places: &[usize]) -> BTreeSet<usize> {
        places.iter().map(|place| mutants[*place].line).collect()
    }

    const SAMPLE: Sample = Sample {
        size: 50,
        seed: SEED,
    };

    #[test]
    fn a_seed_draws_the_same_again_and_another_seed_others() {
        let all = mutants(0..1000);
        let built: BTreeSet<_> = (0..1000).collect();
        let group = group(&["a.rs", "b.rs"]);
        let first = SAMPLE.drawn(&all, &group, &built);
        assert_eq!(names(&all, &first).len(), 50);
        // Fixed: this is what makes two runs comparable. It changes only with the names of mutants.
        assert_eq!(first[..3], [968, 877, 741]);
        assert_eq!(SAMPLE.drawn(&all, &group, &built), first);
        let other = Sample { seed: 2, ..SAMPLE }.drawn(&all, &group, &built);
        let both = names(&all, &other)
            .intersection(&names(&all, &first))
            .count();
        assert!(both < 15, "{both}");
    }

    #[test]
    fn mutants_that_come_and_go_do_not_change_the_place_of_others() {
        let (before, after) = (mutants(0..1000), mutants((0..500).chain(510..1010)));
        let group = group(&["a.rs", "b.rs"]);
        let drawn = |all: &[Mutant]| {
            let built = (0..all.len()).collect();
            names(all, &SAMPLE.drawn(all, &group, &built))
        };
        let same = drawn(&before).intersection(&drawn(&after)).count();
        assert!(same >= 45, "{same}");
    }

    #[test]
    fn every_mutant_is_drawn_as_often_as_the_others() {
        let all = mutants(0..200);
        let built: BTreeSet<_> = (0..200).collect();
        let group = group(&["a.rs", "b.rs"]);
        let mut times = vec![0_u32; 200];
        for seed in 0..400 {
            let drawn = Sample { size: 50, seed }.drawn(&all, &group, &built);
            drawn.into_iter().for_each(|place| times[place] += 1);
        }
        // 100 each; five standard deviations are 43.
        assert!(
            times.iter().all(|times| (57..=143).contains(times)),
            "{times:?}"
        );
    }

    #[test]
    fn a_sample_is_of_one_set_and_what_does_not_compile_is_replaced() {
        let all = mutants(0..1000);
        let group = group(&["a.rs"]);
        let built = SAMPLE.built(&all, &group);
        assert_eq!(built.len(), 85);
        // Others are built for other sets.
        let everything: BTreeSet<_> = (0..1000).collect();
        let first = SAMPLE.drawn(&all, &group, &everything);
        assert_eq!(first, built[..50]);
        assert!(first.iter().all(|place| all[*place].file == "a.rs"));
        let fewer = everything.into_iter().filter(|place| *place != first[7]);
        let second = SAMPLE.drawn(&all, &group, &fewer.collect());
        assert_eq!(second.len(), 50);
        assert_eq!(second[..7], first[..7]);
        assert_eq!(second[7..49], first[8..]);
        // Not more than there are.
        let few = mutants(0..20);
        let built = SAMPLE.built(&few, &group).into_iter().collect();
        assert_eq!(SAMPLE.drawn(&few, &group, &built).len(), 10);
    }

    #[test]
    fn the_interval_is_that_of_wilson() {
        let near = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 0.0005, "{low}");
            assert!((high - expected.1).abs() < 0.0005, "{high}");
        };
        near(interval(90, 100), (0.8256, 0.9448));
        near(interval(0, 10), (0.0, 0.2775));
        near(interval(300, 300), (0.9874, 1.0));
        near(interval(0, 0), (0.0, 1.0));
    }
}
