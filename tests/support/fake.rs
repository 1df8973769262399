//! Servers that do what a test says.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::resp::Place;

/// One request, as its arguments.
pub type Words = Vec<Vec<u8>>;

/// What a scripted server does with a request.
pub enum Step {
    /// Sends these bytes.
    Say(Vec<u8>),
    /// Sends these bytes, a little later.
    SayAfter(Duration, Vec<u8>),
    /// Sends nothing, ever.
    Hang,
    /// Closes the connection.
    Close,
}

impl Step {
    pub fn say(text: &str) -> Self {
        Self::Say(text.as_bytes().to_vec())
    }
}

/// A server with a script; it ends with its test.
pub struct Fake {
    pub place: Place,
    seen: Arc<Mutex<Vec<Words>>>,
    is_over: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Fake {
    pub fn start(script: impl Fn(&Words) -> Step + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), script)
    }

    pub fn start_on(
        at: SocketAddr,
        script: impl Fn(&Words) -> Step + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let fake = Self {
            place: Place::Tcp(listener.local_addr().unwrap()),
            seen: Arc::default(),
            is_over: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, is_over) = (Arc::clone(&fake.seen), Arc::clone(&fake.is_over));
        let connections = Arc::clone(&fake.connections);
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || serve(stream, &seen, &*script));
            }
        });
        fake
    }

    /// Returns the requests that came so far.
    pub fn seen(&self) -> Vec<Words> {
        self.seen.lock().unwrap().clone()
    }

    /// As [`Fake::seen`], for printing and comparing.
    pub fn seen_text(&self) -> Vec<Vec<String>> {
        let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
        self.seen().iter().map(|words| words.iter().map(text).collect()).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Place::Tcp(at) = &self.place {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(at));
        }
        for stream in self.connections.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Words>>,
    script: &(impl Fn(&Words) -> Step + ?Sized),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(words) = read_request(&mut reader) {
        let step = script(&words);
        seen.lock().unwrap().push(words);
        let said = match step {
            Step::Say(bytes) => stream.write_all(&bytes),
            Step::SayAfter(time, bytes) => {
                thread::sleep(time);
                stream.write_all(&bytes)
            }
            Step::Hang => Ok(()),
            Step::Close => break,
        };
        if said.is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads one request; none at the end of the stream or when it is no request.
pub fn read_request(reader: &mut impl BufRead) -> Option<Words> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let count = number(reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = number(reader)?;
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(length);
        words.push(word);
    }
    Some(words)
}
