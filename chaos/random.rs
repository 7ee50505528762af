//! The generator that faults are drawn from: SplitMix64, so that a seed means the same on every machine.

/// A seeded sequence of numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A generator of its own, which what is drawn here later does not change.
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// One of these, if there are any.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.between(0, of.len() as u64) as usize)
    }

    /// A number of `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low).max(1)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_seed_means_the_same_everywhere() {
        let mut random = super::Random::new(1);
        assert_eq!((random.draw(), random.draw()), (0x910A_2DEC_8902_5CC1, 0xBEEB_8DA1_658E_EC67));
        for _ in 0..100 {
            assert!((5..9).contains(&random.between(5, 9)));
        }
    }
}
