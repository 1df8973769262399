//! The head of a reply, as far as whoever checks a server needs it.

use crate::limits::{HTTP_FIELDS_MAX, HTTP_HEAD_BYTES_MAX};

/// The head of a server's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Bytes of the body, where the server tells; else it ends with the connection.
    pub length: Option<u64>,
    /// Bytes of the head.
    pub len: usize,
}

/// Reads the head at the start of `bytes`; `None` while it is not whole.
///
/// # Errors
///
/// What is wrong with it.
pub fn response_head(bytes: &[u8]) -> Result<Option<ResponseHead>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HTTP_HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HTTP_HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err("the reply's head is too long"),
        Err(_) => return Err("the reply is not HTTP"),
    };
    let status = parsed.code.ok_or("the reply has no status")?;
    let mut head = ResponseHead { status, length: None, len };
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
            let length = value.parse().map_err(|_| "the reply has no proper length")?;
            if head.length.is_some_and(|known| known != length) {
                return Err("the reply has two lengths");
            }
            head.length = Some(length);
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"HTTP/1.1 302 Found\r\nContent-Length: 5\r\nX: y\r\n\r\nhello";
        for end in 0..text.len() - 5 {
            assert_eq!(response_head(&text[..end]), Ok(None), "{end}");
        }
        let head = ResponseHead { status: 302, length: Some(5), len: 47 };
        assert_eq!(response_head(text), Ok(Some(head)));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wrong in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ] {
            assert!(response_head(wrong).is_err());
        }
        let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; HTTP_HEAD_BYTES_MAX]].concat();
        assert!(response_head(&endless).is_err());
    }
}
