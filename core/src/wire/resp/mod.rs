//! The Redis serialization protocol: requests as clients send them, replies as servers send them.
//!
//! Requests are taken strictly (canonical lengths, exact line ends), so that whatever is forwarded
//! byte by byte is something that Redis takes: a frame that only the proxy understands would make
//! the server close a connection that other clients share. Replies are taken as RESP2 and RESP3
//! define them. Nothing recurses, and nothing is allocated by an announced length.

pub mod encode;
pub mod inline;
mod number;
pub mod reply;
pub mod request;

pub use inline::{encode_inline, is_cross_protocol};
pub use number::parse_integer;
pub use reply::{
    ArrayElements, ReplyError, ReplyKind, ReplyScan, ReplyScanner, array_elements, is_error,
    parse_integer_reply,
};
pub use request::{RequestError, RequestLimits, RequestScan, RequestScanner, Span};
