//! HTTP/1.1 as far as a small server needs it: a request's head becomes a value, a reply becomes
//! bytes. Source: RFC 9112; field syntax by the `httparse` package.
//!
//! A request that two readers could take for different ones is refused and ends the connection:
//! two lengths, a length beside a transfer coding, two hosts.

mod reply;
mod response;

pub use self::reply::{Body, HTML, Status, begin_stream, reply, stream_piece};
pub use self::response::{ResponseHead, response_head};

use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_FIELDS_MAX, HTTP_HEAD_BYTES_MAX};

/// What a request wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Show something.
    Get,
    /// Show only the head of it.
    Head,
    /// Change something.
    Post,
    /// Something else.
    Other,
}

/// A request's head and body, as slices of the received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is wanted.
    pub method: Method,
    /// What it is wanted of: the target up to a question mark.
    pub path: &'a str,
    /// What follows the question mark; empty if there is none.
    pub query: &'a str,
    /// The `Host` field; `None` only in HTTP/1.0.
    pub host: Option<&'a str>,
    /// The `Origin` field, by which a browser says whose page asks.
    pub origin: Option<&'a str>,
    /// It says that it takes HTML: a browser that shows what it gets.
    pub takes_html: bool,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// The connection goes on after the reply.
    pub is_persistent: bool,
    /// Bytes of the whole request.
    pub len: usize,
}

/// Why bytes are no request that is served. Each ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They are not HTTP, or ambiguous.
    Malformed,
    /// The head is too long.
    HeadTooLong,
    /// The body is too long.
    BodyTooLong,
    /// A transfer coding is used.
    Coding,
    /// HTTP/1.1 without `Host`.
    NoHost,
}

impl Refused {
    /// Returns the status that tells it.
    pub const fn status(self) -> Status {
        match self {
            Self::Malformed | Self::NoHost => Status::BadRequest,
            Self::HeadTooLong => Status::HeadTooLarge,
            Self::BodyTooLong => Status::BodyTooLarge,
            Self::Coding => Status::NotImplemented,
        }
    }
}

/// Reads the request at the start of `bytes`; `None` while it is not whole.
///
/// # Errors
///
/// [`Refused`]: answer with its status and close.
pub fn request(bytes: &[u8]) -> Result<Option<Request<'_>>, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let head_len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HTTP_HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HTTP_HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refused::HeadTooLong),
        Err(_) => return Err(Refused::Malformed),
    };
    let fields = Fields::of(parsed.headers)?;
    let is_1_1 = parsed.version == Some(1);
    if is_1_1 && fields.host.is_none() {
        return Err(Refused::NoHost);
    }
    let body_len = fields.length.unwrap_or(0);
    if body_len > HTTP_BODY_BYTES_MAX {
        return Err(Refused::BodyTooLong);
    }
    let len = head_len + body_len;
    let Some(body) = bytes.get(head_len..len) else { return Ok(None) };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method: match parsed.method.unwrap_or_default() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        path,
        query,
        host: fields.host,
        origin: fields.origin,
        takes_html: fields.takes_html,
        bearer: fields.bearer,
        body,
        is_persistent: fields.is_persistent.unwrap_or(is_1_1),
        len,
    }))
}

/// The fields that matter.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    takes_html: bool,
    bearer: Option<&'a str>,
    length: Option<usize>,
    is_persistent: Option<bool>,
}

impl<'a> Fields<'a> {
    fn of(headers: &[httparse::Header<'a>]) -> Result<Self, Refused> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("transfer-encoding") {
                return Err(Refused::Coding);
            }
            if is("accept") {
                // Nothing but the index depends on it, so that it may come twice and be anything.
                let wanted: &[u8] = b"text/html";
                fields.takes_html |= header.value.windows(wanted.len()).any(|at| at == wanted);
            }
            let is_known = ["host", "origin", "authorization", "content-length", "connection"]
                .into_iter()
                .any(is);
            if !is_known {
                continue;
            }
            let value = std::str::from_utf8(header.value).map_err(|_| Refused::Malformed)?.trim();
            if is("host") {
                once(&mut fields.host, value)?;
            } else if is("origin") {
                once(&mut fields.origin, value)?;
            } else if is("authorization") {
                // Another scheme is as good as none: whoever needs the token refuses.
                let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
                if scheme.eq_ignore_ascii_case("bearer") {
                    once(&mut fields.bearer, token.trim())?;
                }
            } else if is("content-length") {
                once(&mut fields.length, content_length(value)?)?;
            } else {
                for option in value.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("close") {
                        fields.is_persistent = Some(false);
                    } else if option.eq_ignore_ascii_case("keep-alive") {
                        fields.is_persistent.get_or_insert(true);
                    }
                }
            }
        }
        Ok(fields)
    }
}

/// Notes a field's value; a field that comes twice has no meaning that all agree on.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Refused> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refused::Malformed),
    }
}

/// Reads a length: digits only, as RFC 9110 section 8.6 wants it.
fn content_length(value: &str) -> Result<usize, Refused> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(Refused::Malformed);
    }
    value.parse().map_err(|_| Refused::BodyTooLong)
}

/// Returns the value of `name` in a query such as `a=1&b=2`; values are taken as they are.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// Tells whether a `Host` names one of `names`, or this host by an address, whatever the port.
///
/// A page of a foreign site can make a browser ask us under a name of that site whose address it
/// changed to ours; the browser then sends that name. Addresses and names of our own can't be
/// taken over like that.
pub fn is_own_host(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || is_port(port) => {
                return address.parse::<std::net::Ipv6Addr>().is_ok();
            }
            Some(_) | None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.parse::<std::net::Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Tells whether a page of `origin` may ask a server that it calls `host`: it is the server's own.
pub fn is_same_origin(origin: &str, host: &str) -> bool {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests;
