//! Repeatable choices: what is called, when who is killed.
//!
//! `SplitMix64` (Steele, Lea and Flood 2014), as small as it gets. Not for secrets.
//! Invariant: two streams forked with different labels are independent, so that another number of
//! kills does not change the calls.

/// A source of choices.
#[derive(Debug, Clone)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The choices of one purpose of a run.
    pub(crate) fn fork(seed: u64, label: &str) -> Self {
        let mixed = label.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
        });
        Self(mixed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to below `bound`; 0 when that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A number from `least` to below `bound`.
    pub(crate) fn between(&mut self, least: u64, bound: u64) -> u64 {
        least + self.below(bound.saturating_sub(least))
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of them; `None` when there is none.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = self.below(of.len() as u64);
        of.get(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_chooses_the_same_and_another_label_something_else() {
        let draw = |label| {
            let mut seed = Seed::fork(7, label);
            (0..8).map(|_| seed.below(1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
    }

    #[test]
    fn choices_stay_inside_their_bounds() {
        let mut seed = Seed::fork(1, "x");
        assert!((0..1_000).all(|_| (3..9).contains(&seed.between(3, 9))));
        assert_eq!(seed.below(0), 0);
        assert_eq!(seed.pick::<u8>(&[]), None);
    }
}
