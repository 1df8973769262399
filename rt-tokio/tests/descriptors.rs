//! Descriptors, which belong to the whole process: one test per file and process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::io::Write;

use common::*;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_stop_under_load_leaves_no_descriptor_behind() {
    let before = descriptors();
    for _ in 0..5 {
        let running = Running::start(Echo::default);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let mut streams: Vec<_> = (0..5).map(|_| running.connect()).collect();
                let bytes = pattern(100_000);
                // Until the worker is gone.
                std::thread::spawn(move || {
                    while streams.iter_mut().all(|stream| {
                        let is_alive = stream.write_all(&bytes).is_ok();
                        let mut back = vec![0; bytes.len()];
                        is_alive && std::io::Read::read_exact(stream, &mut back).is_ok()
                    }) {}
                })
            })
            .collect();
        // All of them are being served.
        let mut witness = running.connect();
        witness.write_all(b"?").unwrap();
        assert_eq!(read_exactly(&mut witness, 1), b"?");
        running.stop();
        for thread in threads {
            thread.join().unwrap();
        }
        drop(witness);
        assert_eq!(descriptors(), before);
    }
}
