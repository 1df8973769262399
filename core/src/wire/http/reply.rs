//! From a status and a body to bytes.

use std::io::Write as _;

/// The statuses that are used. Source: RFC 9110 section 15, RFC 6585.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Here it is.
    Ok,
    /// The request makes no sense.
    BadRequest,
    /// A token is needed.
    Unauthorized,
    /// Not for whoever asks.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// There is, but that can't be done with it.
    MethodNotAllowed,
    /// The body is too long.
    BodyTooLarge,
    /// Sent to a server that it does not name.
    Misdirected,
    /// The head is too long.
    HeadTooLarge,
    /// Not understood here.
    NotImplemented,
    /// Not now.
    Unavailable,
}

impl Status {
    /// Returns the number and its words.
    pub const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::BodyTooLarge => "413 Content Too Large",
            Self::Misdirected => "421 Misdirected Request",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// What a reply carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The media type of a page for people.
pub const HTML: &str = "text/html; charset=utf-8";

/// Said with every reply: nothing that we show is to be kept, framed or guessed at.
const GUARDS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";

/// Nothing that we show is to be run, either.
const NOTHING_RUNS: &str =
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// Except what our page brings itself; it may ask us and nobody else.
const PAGE_RUNS: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; \
    base-uri 'none'; form-action 'none'; connect-src 'self'; img-src data:; \
    style-src 'unsafe-inline'; script-src 'unsafe-inline'\r\n";

/// Appends a whole reply. A reply to HEAD has everything but the bytes of the body.
pub fn reply(
    out: &mut Vec<u8>,
    status: Status,
    body: Body<'_>,
    is_persistent: bool,
    is_to_head: bool,
) {
    head(out, status, body.kind, is_persistent);
    // Writing to a Vec can't fail.
    let _ = write!(out, "Content-Length: {}\r\n\r\n", body.bytes.len());
    if !is_to_head {
        out.extend_from_slice(body.bytes);
    }
}

/// Appends the head of a reply whose end is the end of the connection.
pub fn begin_stream(out: &mut Vec<u8>, kind: &'static str) {
    head(out, Status::Ok, kind, false);
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
}

/// Appends a piece of such a reply; an empty one ends it.
pub fn stream_piece(out: &mut Vec<u8>, bytes: &[u8]) {
    let _ = write!(out, "{:x}\r\n", bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn head(out: &mut Vec<u8>, status: Status, kind: &str, is_persistent: bool) {
    let connection = if is_persistent { "keep-alive" } else { "close" };
    let _ = write!(
        out,
        "HTTP/1.1 {}\r\nContent-Type: {kind}\r\nConnection: {connection}\r\n{GUARDS}{}",
        status.line(),
        if kind == HTML { PAGE_RUNS } else { NOTHING_RUNS }
    );
    match status {
        Status::Unauthorized => out.extend_from_slice(b"WWW-Authenticate: Bearer\r\n"),
        Status::MethodNotAllowed => out.extend_from_slice(b"Allow: GET, HEAD, POST\r\n"),
        Status::Ok
        | Status::BadRequest
        | Status::Forbidden
        | Status::NotFound
        | Status::BodyTooLarge
        | Status::Misdirected
        | Status::HeadTooLarge
        | Status::NotImplemented
        | Status::Unavailable => {}
    }
}
