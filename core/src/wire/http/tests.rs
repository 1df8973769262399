use super::*;

fn whole(text: &str) -> Request<'_> {
    request(text.as_bytes()).unwrap().unwrap()
}

fn refused(text: &str) -> Refused {
    request(text.as_bytes()).unwrap_err()
}

#[test]
fn a_request_is_read_up_to_its_end_and_no_further() {
    let text = "GET /metrics?pool=a&x HTTP/1.1\r\nHost: localhost:1\r\nAccept: */*\r\n\r\nGET /";
    let got = whole(text);
    assert_eq!((got.method, got.path, got.query), (Method::Get, "/metrics", "pool=a&x"));
    assert_eq!(got.len, text.len() - 5);
    assert!(got.is_persistent);
    assert_eq!(parameter(got.query, "pool"), Some("a"));
    assert_eq!(parameter(got.query, "x"), Some(""));
    assert_eq!(parameter(got.query, "y"), None);
}

#[test]
fn every_cut_of_a_request_is_an_unfinished_request() {
    let text = "POST /slowlog/reset HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer abc\r\n\
        Origin: http://[::1]\r\nContent-Length: 4\r\n\r\nbody";
    for end in 0..text.len() {
        assert_eq!(request(&text.as_bytes()[..end]), Ok(None), "{end}");
    }
    let got = whole(text);
    assert_eq!((got.body, got.bearer), (b"body".as_slice(), Some("abc")));
    assert_eq!(got.origin, Some("http://[::1]"));
}

#[test]
fn persistence_is_by_version_unless_said() {
    for (text, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
    ] {
        assert_eq!(whole(text).is_persistent, expected, "{text}");
    }
}

#[test]
fn what_two_readers_could_understand_differently_is_refused() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    assert_eq!(refused(&with("Content-Length: 1\r\nContent-Length: 2")), Refused::Malformed);
    assert_eq!(refused(&with("Content-Length: +1")), Refused::Malformed);
    assert_eq!(refused(&with("Content-Length: 1, 1")), Refused::Malformed);
    assert_eq!(refused(&with("Content-Length:")), Refused::Malformed);
    assert_eq!(refused(&with("Transfer-Encoding: chunked")), Refused::Coding);
    assert_eq!(refused(&with("Host: b")), Refused::Malformed);
    assert_eq!(refused(&with("Origin: a\r\nOrigin: b")), Refused::Malformed);
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Refused::NoHost);
    assert_eq!(refused("SET key value\r\n\r\n"), Refused::Malformed);
    assert_eq!(refused("*1\r\n$4\r\nPING\r\n"), Refused::Malformed);
}

#[test]
fn sizes_are_bounded() {
    let long = "a".repeat(HTTP_HEAD_BYTES_MAX);
    assert_eq!(refused(&format!("GET /{long}")), Refused::HeadTooLong);
    let whole_head = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(refused(&whole_head), Refused::HeadTooLong);
    let fields = "a: b\r\n".repeat(HTTP_FIELDS_MAX + 1);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), Refused::HeadTooLong);
    for length in [(HTTP_BODY_BYTES_MAX + 1).to_string(), "9".repeat(40)] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(refused(&text), Refused::BodyTooLong);
    }
}

#[test]
fn a_host_that_somebody_else_could_own_is_not_ours() {
    let names = [String::from("proxy-1")];
    for own in [
        "localhost",
        "LOCALHOST:22280",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:1",
        "[::1]",
        "Proxy-1:1",
    ] {
        assert!(is_own_host(own, &names), "{own}");
    }
    for foreign in [
        "",
        "attacker.example",
        "localhost.attacker.example:22280",
        "127.0.0.1.attacker.example",
        "[attacker]:1",
        "[::1]attacker",
        "::1",
        "localhost:1:2",
        "proxy-1.attacker.example",
    ] {
        assert!(!is_own_host(foreign, &names), "{foreign}");
    }
}

#[test]
fn only_our_own_pages_may_ask() {
    assert!(is_same_origin("http://localhost:22280", "localhost:22280"));
    assert!(!is_same_origin("http://localhost:80", "localhost:22280"));
    assert!(!is_same_origin("null", "localhost:22280"));
    assert!(!is_same_origin("http://attacker.example", "localhost:22280"));
}

#[test]
fn a_reply_says_how_long_it_is_and_a_reply_to_head_has_no_body() {
    let body = Body { kind: "text/plain", bytes: b"hello" };
    let mut out = Vec::new();
    reply(&mut out, Status::Ok, body, true, false);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"), "{text}");
    assert!(text.ends_with("Content-Length: 5\r\n\r\nhello"), "{text}");
    let mut out = Vec::new();
    reply(&mut out, Status::Unauthorized, body, false, true);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("WWW-Authenticate: Bearer\r\n") && text.contains("Connection: close"));
    assert!(text.ends_with("Content-Length: 5\r\n\r\n"), "{text}");
}
