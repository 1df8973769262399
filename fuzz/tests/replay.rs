//! Runs every committed input of `corpus/` through its body, on stable.

use std::fs;
use std::path::Path;

#[test]
fn the_committed_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, body) in ringkeeper_fuzz::TARGETS {
        let inputs = fs::read_dir(corpus.join(name)).expect("a corpus for each target");
        let mut count = 0;
        for input in inputs {
            let path = input.expect("a readable directory").path();
            println!("{}", path.display());
            body(&fs::read(&path).expect("a readable input"));
            count += 1;
        }
        assert!(count > 0, "{name} has no inputs");
    }
}
