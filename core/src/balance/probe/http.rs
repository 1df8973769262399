//! Pages that a server must have: the conversation of `HTTP_GET`.

use std::net::SocketAddr;

use md5::{Digest as _, Md5};

use super::Progress;
use crate::config::keepalived::{Cover, HttpVersion, Url};
use crate::limits;
use crate::wire::http::{ResponseHead, response_head};

/// The conversations of one checker: one page after the other, each on a connection of its own.
#[derive(Debug)]
pub struct Pages {
    urls: Vec<Url>,
    patterns: Vec<Option<regex::bytes::Regex>>,
    version: HttpVersion,
    cover: Cover,
    address: SocketAddr,
    /// Which page is asked for.
    at: usize,
    head: Option<ResponseHead>,
    /// The reply as far as it is kept: the head, and of the body what is to be searched.
    kept: Vec<u8>,
    body: u64,
    digest: Md5,
}

impl Pages {
    /// Makes one for pages of a server.
    pub fn new(urls: Vec<Url>, version: HttpVersion, cover: Cover, address: SocketAddr) -> Self {
        let compile = |url: &Url| url.regex.as_ref().and_then(|pattern| pattern.compile().ok());
        let patterns = urls.iter().map(compile).collect();
        Self {
            urls,
            patterns,
            version,
            cover,
            address,
            at: 0,
            head: None,
            kept: Vec::new(),
            body: 0,
            digest: Md5::new(),
        }
    }

    /// Begins with the first page.
    pub fn restart(&mut self) {
        self.at = 0;
        self.clear();
    }

    fn clear(&mut self) {
        self.head = None;
        self.kept.clear();
        self.body = 0;
        self.digest = Md5::new();
    }

    /// Returns the request for the page that is asked for.
    pub fn request(&self) -> Vec<u8> {
        let url = self.urls.get(self.at);
        let path = url.map_or("/", |url| url.path.as_str());
        let version = if self.version == HttpVersion::V1_1 { "1.1" } else { "1.0" };
        let host = url.and_then(|url| url.host.clone());
        let usual = if self.cover == Cover::Plain { 80 } else { 443 };
        let host = host.unwrap_or_else(|| match self.address {
            SocketAddr::V6(at) if at.port() == usual => format!("[{}]", at.ip()),
            SocketAddr::V4(at) if at.port() == usual => at.ip().to_string(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => self.address.to_string(),
        });
        let close = if self.version == HttpVersion::V1_0 { "" } else { "Connection: close\r\n" };
        format!(
            "GET {path} HTTP/{version}\r\nUser-Agent: ringkeeper\r\nHost: {host}\r\n{close}\r\n"
        )
        .into_bytes()
    }

    /// Returns the name of the host that the page is asked of, if it is to be told before.
    pub fn name(&self) -> Option<&str> {
        let url = self.urls.get(self.at).filter(|_| self.cover == Cover::TlsWithName)?;
        url.host.as_deref()
    }

    /// Takes a part of the reply.
    pub fn take(&mut self, bytes: &[u8]) -> Progress {
        let mut bytes = bytes;
        let head = match self.head {
            Some(head) => head,
            None => {
                self.kept.extend_from_slice(bytes);
                let head = match response_head(&self.kept) {
                    Ok(Some(head)) => head,
                    Ok(None) => return Progress::More,
                    Err(why) => return self.wrong(why),
                };
                if let Some(why) = self.wrong_status(head.status) {
                    return self.wrong(&why);
                }
                self.head = Some(head);
                let body_len = self.kept.len().saturating_sub(head.len);
                bytes = bytes.get(bytes.len().saturating_sub(body_len)..).unwrap_or_default();
                self.kept.clear();
                head
            }
        };
        // What is behind an announced length is no part of the body.
        let left = head.length.map_or(u64::MAX, |length| length.saturating_sub(self.body));
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..take).unwrap_or_default();
        self.body = self.body.saturating_add(bytes.len() as u64);
        if self.body > limits::CHECK_BODY_BYTES_MAX as u64 {
            return self.wrong("the page is too long");
        }
        self.digest.update(bytes);
        if self.has_pattern() {
            let room = limits::CHECK_REPLY_BYTES_MAX.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
        if head.length == Some(self.body) { self.judge() } else { Progress::More }
    }

    /// Takes the end of the connection: that of a page without a length.
    pub fn end(&mut self) -> Progress {
        match self.head {
            None => self.wrong("it closed the connection before its reply"),
            Some(head) if head.length.is_some_and(|length| length > self.body) => {
                self.wrong("it closed the connection within its reply")
            }
            Some(_) => self.judge(),
        }
    }

    fn has_pattern(&self) -> bool {
        self.patterns.get(self.at).is_some_and(Option::is_some)
    }

    fn path(&self) -> &str {
        self.urls.get(self.at).map_or("/", |url| url.path.as_str())
    }

    fn wrong(&self, why: &str) -> Progress {
        Progress::Over(Err(format!("{}: {why}", self.path())))
    }

    fn wrong_status(&self, status: u16) -> Option<String> {
        let url = self.urls.get(self.at)?;
        let is_good = url.status.iter().any(|range| range.contains(&status));
        (!is_good).then(|| format!("status {status}"))
    }

    /// Judges a whole page, and goes on with the next.
    fn judge(&mut self) -> Progress {
        if let Some(url) = self.urls.get(self.at) {
            let digest = std::mem::take(&mut self.digest).finalize();
            if url.digest.is_some_and(|wanted| wanted[..] != digest[..]) {
                return self.wrong("the page is another one");
            }
            let is_negated = url.regex.as_ref().is_some_and(|pattern| pattern.is_negated);
            if let Some(Some(pattern)) = self.patterns.get(self.at)
                && pattern.is_match(&self.kept) == is_negated
            {
                let what = if is_negated { "has" } else { "lacks" };
                return self.wrong(&format!("the page {what} what is looked for"));
            }
        }
        self.clear();
        self.at += 1;
        if self.at < self.urls.len() {
            return Progress::Anew;
        }
        Progress::Over(Ok(match self.urls.len() {
            1 => "the page is well".to_owned(),
            count => format!("all {count} pages are well"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keepalived::Pattern;

    fn url(path: &str) -> Url {
        let status = vec![200..=299];
        Url { path: path.to_owned(), digest: None, status, host: None, regex: None }
    }

    fn pages(urls: Vec<Url>) -> Pages {
        Pages::new(urls, HttpVersion::V1_0, Cover::Plain, "10.0.0.1:8080".parse().unwrap())
    }

    fn verdict(pages: &mut Pages, reply: &[u8], chunk: usize) -> Progress {
        for part in reply.chunks(chunk) {
            let progress = pages.take(part);
            if progress != Progress::More {
                return progress;
            }
        }
        pages.end()
    }

    #[test]
    fn a_request_names_host_and_path() {
        let shown = |pages: &Pages| String::from_utf8(pages.request()).unwrap();
        let text = "GET /up HTTP/1.0\r\nUser-Agent: ringkeeper\r\nHost: 10.0.0.1:8080\r\n\r\n";
        assert_eq!(shown(&pages(vec![url("/up")])), text);
        let mut named = url("/");
        named.host = Some("www.example".to_owned());
        let mut pages = pages(vec![named]);
        pages.version = HttpVersion::V1_1;
        assert!(shown(&pages).ends_with("Host: www.example\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn a_page_is_judged_by_status_digest_and_content_however_it_is_cut() {
        let page = |status: &str| format!("HTTP/1.0 {status}\r\n\r\nhello world").into_bytes();
        let digest: [u8; 16] = Md5::digest(b"hello world").into();
        let pattern = |text: &str, is_negated| {
            Some(Pattern { text: text.to_owned(), ignores_case: true, is_negated })
        };
        let table = [
            (url("/"), page("200 OK"), true),
            (url("/"), page("302 Found"), false),
            (Url { status: vec![302..=302], ..url("/") }, page("302 Found"), true),
            (Url { digest: Some(digest), ..url("/") }, page("200 OK"), true),
            (Url { digest: Some([0; 16]), ..url("/") }, page("200 OK"), false),
            (Url { regex: pattern("WORLD$", false), ..url("/") }, page("200 OK"), true),
            (Url { regex: pattern("absent", false), ..url("/") }, page("200 OK"), false),
            (Url { regex: pattern("world", true), ..url("/") }, page("200 OK"), false),
            (url("/"), b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".to_vec(), true),
            (url("/"), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc".to_vec(), false),
            (url("/"), b"HTTP/1.1 200".to_vec(), false),
            (url("/"), b"-ERR unknown command\r\n".to_vec(), false),
        ];
        for (url, reply, expected) in table {
            for chunk in 1..=reply.len() {
                let mut pages = pages(vec![url.clone()]);
                let progress = verdict(&mut pages, &reply, chunk);
                let Progress::Over(result) = progress else { panic!("{progress:?}") };
                assert_eq!(result.is_ok(), expected, "{result:?} {url:?}");
            }
        }
    }

    #[test]
    fn every_page_is_asked_for_and_the_next_attempt_begins_with_the_first() {
        let mut pages = pages(vec![url("/a"), url("/b")]);
        let good = b"HTTP/1.0 204 No Content\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(pages.take(good), Progress::Anew);
        assert!(pages.request().starts_with(b"GET /b "));
        let bad = pages.take(b"HTTP/1.0 500 Oops\r\n\r\n");
        assert_eq!(bad, Progress::Over(Err("/b: status 500".to_owned())));
        pages.restart();
        assert!(pages.request().starts_with(b"GET /a "));
    }

    #[test]
    fn an_endless_page_is_given_up() {
        let mut pages = pages(vec![url("/")]);
        assert_eq!(pages.take(b"HTTP/1.0 200 OK\r\n\r\n"), Progress::More);
        let part = vec![b'x'; 1 << 20];
        let is_over = (0..20).any(|_| pages.take(&part) != Progress::More);
        assert!(is_over && pages.kept.is_empty());
    }
}
