//! Host names to addresses, by the system's resolver, on one thread of its own: it blocks, and a
//! worker must not.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use ringkeeper_core::id::QueryId;
use ringkeeper_core::io::ResolveError;

use crate::mailbox::MailboxSender;

/// Questions that may wait for the thread; more are refused, and the worker asks again later.
const QUESTIONS_MAX: usize = 256;

struct Question {
    query: QueryId,
    host: String,
    port: u16,
}

/// Asks the thread, and starts it for the first question.
#[derive(Debug)]
pub(crate) struct Resolver {
    answers: MailboxSender,
    questions: Option<SyncSender<Question>>,
}

impl Resolver {
    pub(crate) const fn new(answers: MailboxSender) -> Self {
        Self { answers, questions: None }
    }

    /// Asks; the answer comes by mail. Tells whether the question was taken.
    pub(crate) fn ask(&mut self, query: QueryId, host: String, port: u16) -> bool {
        if self.questions.is_none() {
            self.questions = start(self.answers.clone()).ok();
        }
        self.questions
            .as_ref()
            .is_some_and(|thread| thread.try_send(Question { query, host, port }).is_ok())
    }
}

/// The thread ends when the resolver is dropped, after the question that it is at.
fn start(answers: MailboxSender) -> io::Result<SyncSender<Question>> {
    let (sender, questions) = sync_channel::<Question>(QUESTIONS_MAX);
    thread::Builder::new().name("resolver".into()).spawn(move || {
        for Question { query, host, port } in questions {
            let result = look_up(&host, port);
            if answers.answer(query, result).is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    match (host, port).to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<SocketAddr> = addresses.collect();
            if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) }
        }
        // The standard library hides the resolver's own error number and keeps its sentence
        // (glibc's and musl's), which is English because nobody calls `setlocale`.
        Err(error) => {
            let sentence = error.to_string();
            if sentence.contains("Temporary failure") || sentence.contains("Try again") {
                Err(ResolveError::Temporary)
            } else {
                Err(ResolveError::NotFound)
            }
        }
    }
}
