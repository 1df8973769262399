//! Runs every committed input of `corpus/` through its body, and a few thousand that nobody
//! chose, on stable.

// A panic is how a test reports.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(directory)
        .expect("a corpus for each target")
        .map(|input| input.expect("a readable directory").path())
        .collect();
    paths.sort();
    let read = |path| {
        println!("{}", Path::display(path));
        fs::read(path).expect("a readable input")
    };
    paths.iter().map(|path| read(path)).collect()
}

#[test]
fn the_committed_corpus_breaks_no_promise() {
    for (name, body) in ringkeeper_fuzz::TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for input in inputs {
            body(&input);
        }
    }
}

/// A small generator of numbers, the same ones in every run. Source: Marsaglia's xorshift.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("53 bits") % end.max(1)
    }
}

/// Mixes two inputs of the corpus and damages the result in a few places.
fn mutated(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let (first, second) =
        (&corpus[numbers.below(corpus.len())], &corpus[numbers.below(corpus.len())]);
    let mut input = first[..numbers.below(first.len() + 1)].to_vec();
    input.extend(&second[numbers.below(second.len() + 1)..]);
    for _ in 0..numbers.below(8) {
        let at = numbers.below(input.len() + 1);
        let byte = numbers.below(256).to_le_bytes()[0];
        match input.get_mut(at) {
            Some(place) => *place = byte,
            None => input.push(byte),
        }
    }
    input
}

#[test]
fn two_thousand_damaged_inputs_of_each_target_break_no_promise() {
    for (name, body) in ringkeeper_fuzz::TARGETS {
        let corpus = corpus(name);
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2000 {
            let mut input = mutated(&corpus, &mut numbers);
            input.truncate(4096);
            body(&input);
        }
    }
}
