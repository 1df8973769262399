//! memcached's text protocol: requests as clients send them, replies as servers send them.
//!
//! A request that is passed on is in the one form that every memcached reads the same way: tokens
//! with one space between them, lengths and numbers that it takes, a value of the length that was
//! announced. Whatever else a client sends is answered here, because a line that memcached
//! refuses while its value is under way makes it take the value for commands, on a connection
//! that other clients share. Source: memcached's protocol.txt, and what memcached 1.6 does.

mod meta;
pub mod reply;
pub mod request;
mod verb;

pub use meta::decode_key;
pub use reply::{ReplyError, ReplyScanner, value_block};
pub use request::{LineError, Request, RequestError, RequestLimits, RequestScan, RequestScanner};
pub use verb::Verb;
