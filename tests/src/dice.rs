//! Random numbers for tests that choose their moments by chance.

/// Reproducible random numbers.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `most`.
    pub fn roll(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}
