//! Inputs out of other inputs, the same ones for the same seed.

use crate::edits::Random;

use super::Target;

/// Bytes that parsers look for.
const WORDS: [&[u8]; 16] = [
    b"\0\0",
    b"\xff\xff",
    b"\x7f\xff",
    b"\x08\x00\x45",
    b"\x86\xdd\x60",
    b"\x81\x00",
    b"---\n",
    b": ",
    b"- ",
    b"{",
    b"[",
    b"]}",
    b"&a ",
    b"*a ",
    b"\xc0\x0c",
    b"null",
];

/// Inputs kept of those made.
const CHILDREN: usize = 64;

/// Makes inputs of a target's seeds and of those before.
#[derive(Debug)]
pub struct Grower {
    random: Random,
    pool: Vec<Vec<u8>>,
    children: Vec<Vec<u8>>,
    longest: usize,
    next: usize,
}

impl Grower {
    /// Inputs that follow from `seed`.
    pub fn new(target: &Target, seed: u64) -> Self {
        let mut pool = (target.seeds)();
        pool.extend(target.found().into_iter().map(|(_, bytes)| bytes));
        if pool.is_empty() {
            pool.push(Vec::new());
        }
        Self { random: Random::new(seed), pool, children: Vec::new(), longest: target.longest, next: 0 }
    }

    /// The next one: first the seeds as they are.
    pub fn next_input(&mut self) -> Vec<u8> {
        if let Some(seed) = self.pool.get(self.next) {
            self.next += 1;
            return seed.clone();
        }
        let mut input = self.one_known();
        for _ in 0..=self.random.below(6) {
            self.change(&mut input);
        }
        input.truncate(self.longest);
        // Now and then one has children; the seeds stay, or all would end as what no parser looks at.
        if self.children.len() < CHILDREN {
            self.children.push(input.clone());
        } else if self.random.once_in(64) {
            let place = self.at(CHILDREN);
            self.children[place].clone_from(&input);
        }
        input
    }

    fn one_known(&mut self) -> Vec<u8> {
        if !self.children.is_empty() && self.random.once_in(4) {
            let place = self.at(self.children.len());
            return self.children[place].clone();
        }
        let place = self.at(self.pool.len());
        self.pool[place].clone()
    }

    fn at(&mut self, end: usize) -> usize {
        self.random.below(end.max(1) as u64) as usize
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.at(input.len() + 1);
        let length = self.at(16).min(input.len() - at);
        match self.random.below(8) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.below(8);
                }
            }
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random.below(256) as u8;
                }
            }
            3 => drop(input.drain(at..at + length)),
            4 => {
                let piece = input[at..at + length].to_vec();
                let to = self.at(input.len() + 1);
                input.splice(to..to, piece);
            }
            5 => {
                let word = WORDS[self.at(WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            6 => {
                let other = self.one_known();
                let from = self.at(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                for _ in 0..self.random.below(8) {
                    let byte = self.random.below(256) as u8;
                    input.insert(at, byte);
                }
            }
        }
    }
}
