//! What checked servers answer.

use ringkeeper_core::balance::probe::{Progress, http, redis};
use ringkeeper_core::config::keepalived::{
    Cover, HttpVersion, Pattern, RedisCheck, RedisRole, Url,
};
use ringkeeper_core::wire::{dns, http::response_head, icmp};

/// Replies to checks: cuts change no verdict, and nothing breaks the checker.
///
/// The first byte is the chunk size.
pub(crate) fn check_reply(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    if let Ok(Some(head)) = response_head(bytes) {
        assert!(head.len <= bytes.len());
        assert_eq!(response_head(&bytes[..head.len]), Ok(Some(head)), "what follows is the body");
    }
    let whole = bytes.len().max(1);
    assert_eq!(page(bytes, size), page(bytes, whole));
    for role in [RedisRole::Any, RedisRole::Master, RedisRole::Replica] {
        assert_eq!(asked(role, false, bytes, size), asked(role, false, bytes, whole));
    }
    assert_eq!(asked(RedisRole::Any, true, bytes, size), asked(RedisRole::Any, true, bytes, whole));
    let _ = dns::judge(bytes, 1);
    if let Some((_, payload)) = icmp::echo_reply(bytes) {
        assert!(payload.len() + 8 <= bytes.len());
    }
}

fn page(bytes: &[u8], size: usize) -> Progress {
    let regex = Pattern { text: "a+b".to_owned(), ignores_case: true, is_negated: false };
    let url = |regex| Url {
        path: "/".to_owned(),
        digest: None,
        status: vec![200..=299],
        host: None,
        regex,
    };
    let at = "10.0.0.1:80".parse().unwrap();
    let mut pages =
        http::Pages::new(vec![url(Some(regex)), url(None)], HttpVersion::V1_1, Cover::Plain, at);
    for chunk in bytes.chunks(size) {
        match pages.take(chunk) {
            Progress::More => {}
            told @ (Progress::Ask(_) | Progress::Anew | Progress::Over(_)) => return told,
        }
    }
    pages.end()
}

fn asked(role: RedisRole, is_watched: bool, bytes: &[u8], size: usize) -> Option<Progress> {
    let mut check = RedisCheck { role, ..RedisCheck::default() };
    if is_watched {
        check.password = Some("x".to_owned());
        check.sentinels.push("10.0.0.2:26379".parse().unwrap());
        check.master = "m".to_owned();
    }
    let mut questions = redis::Questions::new(check, "10.0.0.1:6379".parse().unwrap());
    questions.restart();
    bytes.chunks(size).map(|chunk| questions.take(chunk)).find(|said| *said != Progress::More)
}
