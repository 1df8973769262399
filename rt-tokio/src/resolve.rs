//! Host names, looked up beside the worker.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use ringkeeper_core::id::QueryId;
use ringkeeper_core::io::ResolveError;

/// The answer to a question.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) query: QueryId,
    pub(crate) result: Result<Vec<SocketAddr>, ResolveError>,
}

/// Asks the system's resolver.
#[derive(Debug)]
pub(crate) struct Resolver {
    answers: Arc<Mutex<Vec<Answer>>>,
    waker: Waker,
}

impl Resolver {
    /// Makes a resolver that calls `waker` when there are answers.
    pub(crate) fn new(waker: Waker) -> Self {
        Self { answers: Arc::default(), waker }
    }

    /// Asks; the answer comes through [`Resolver::take`].
    pub(crate) fn ask(&self, query: QueryId, host: String, port: u16) {
        let answers = Arc::clone(&self.answers);
        let waker = self.waker.clone();
        tokio::spawn(async move {
            let result = match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(resolve_error(&error)),
            };
            let result = result.and_then(|addresses: Vec<_>| {
                if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) }
            });
            answers.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { query, result });
            waker.wake();
        });
    }

    /// Takes the answers that are there.
    pub(crate) fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells a name that does not exist from a resolver that cannot say.
///
/// The standard library keeps the number of getaddrinfo to itself and passes on the sentence of
/// gai_strerror, so the sentences of the usual C libraries decide. An unknown one counts as
/// temporary: the price of a wrong guess is a question too many.
fn resolve_error(error: &io::Error) -> ResolveError {
    const NOT_FOUND: [&str; 5] = [
        "Name or service not known",           // glibc, EAI_NONAME
        "No address associated with hostname", // glibc and BSD, EAI_NODATA
        "nodename nor servname provided",      // BSD and macOS, EAI_NONAME
        "Name does not resolve",               // musl, EAI_NONAME
        "Name has no usable address",          // musl, EAI_NODATA
    ];
    if error.kind() == io::ErrorKind::InvalidInput {
        // A name that no resolver can be asked about.
        return ResolveError::NotFound;
    }
    let sentence = error.to_string();
    if NOT_FOUND.iter().any(|known| sentence.contains(known)) {
        ResolveError::NotFound
    } else {
        ResolveError::Temporary
    }
}
