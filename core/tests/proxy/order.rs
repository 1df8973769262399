//! Replies reach the client that asked, in the order in which it asked.

use crate::harness::{Harness, request};

const TWO: &str = "
p:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  distribution: modula
  redis: true
  timeout: 400
  servers:
    - 127.0.0.1:1:1 a
    - 127.0.0.1:2:1 b
";

/// Two keys that `TWO` puts on different servers, in the servers' order.
fn keys() -> (String, String) {
    let mut found = (None, None);
    for number in 0.. {
        let key = format!("k{number}");
        let mut hash = 0x8422_2325_u32;
        for byte in key.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x1b3);
        }
        if hash.is_multiple_of(2) {
            found.0.get_or_insert(key);
        } else {
            found.1.get_or_insert(key);
        }
        if let (Some(a), Some(b)) = &found {
            return (a.clone(), b.clone());
        }
    }
    unreachable!()
}

#[test]
fn a_request_reaches_the_server_of_its_key_as_it_was_sent() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys();
    h.send(client, request(&["get", &a]) + &request(&["SET", &b, "v"]));
    let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    assert_eq!(h.take(first), request(&["get", &a]));
    assert_eq!(h.take(second), request(&["SET", &b, "v"]));
}

#[test]
fn replies_leave_in_the_order_of_the_requests() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys();
    h.send(client, request(&["GET", &a]) + &request(&["GET", &b]) + "*1\r\n$4\r\nPING\r\n");
    let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    h.send(second, "$1\r\nB\r\n");
    assert_eq!(h.take(client), "");
    h.send(first, "$1\r\nA\r\n");
    assert_eq!(h.take(client), "$1\r\nA\r\n$1\r\nB\r\n+PONG\r\n");
}

#[test]
fn requests_of_many_clients_share_a_write_and_each_gets_its_own_reply() {
    let mut h = Harness::new(TWO);
    let (one, two) = (h.client(), h.client());
    let (a, _) = keys();
    let get = request(&["GET", &a]);
    h.send_together(&[(one, get.as_bytes()), (two, get.as_bytes()), (one, get.as_bytes())]);
    let server = h.server("127.0.0.1:1");
    assert_eq!(h.take(server), get.repeat(3));
    h.send(server, ":1\r\n:2\r\n:3\r\n");
    assert_eq!(h.take(one), ":1\r\n:3\r\n");
    assert_eq!(h.take(two), ":2\r\n");
}

#[test]
fn any_cut_of_the_bytes_gives_the_same_conversation() {
    let (a, b) = keys();
    let requests = request(&["SET", &a, "some value"]) + &request(&["MGET", &a, &b]) + "PING\r\n";
    for step in 1..requests.len() {
        let mut h = Harness::new(TWO);
        let client = h.client();
        for piece in requests.as_bytes().chunks(step) {
            h.send(client, piece);
        }
        let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
        let expected = request(&["SET", &a, "some value"]) + &request(&["MGET", &a]);
        assert_eq!(h.take(first), expected, "cut at every {step}");
        assert_eq!(h.take(second), request(&["MGET", &b]));
        for piece in b"+OK\r\n*1\r\n$10\r\nsome value\r\n".chunks(step) {
            h.send(first, piece);
        }
        for piece in b"*1\r\n$-1\r\n".chunks(step) {
            h.send(second, piece);
        }
        assert_eq!(h.take(client), "+OK\r\n*2\r\n$10\r\nsome value\r\n$-1\r\n+PONG\r\n");
    }
}

#[test]
fn the_replies_of_a_client_that_left_reach_nobody() {
    let mut h = Harness::new(TWO);
    let (gone, stays) = (h.client(), h.client());
    let (a, _) = keys();
    h.send(gone, request(&["GET", &a]));
    h.lose(gone, ringkeeper_core::io::CloseReason::Reset);
    let newcomer = h.client();
    h.send(stays, request(&["GET", &a]));
    h.send(newcomer, request(&["GET", &a]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "$4\r\ngone\r\n$5\r\nstays\r\n$3\r\nnew\r\n");
    assert_eq!(h.take(stays), "$5\r\nstays\r\n");
    assert_eq!(h.take(newcomer), "$3\r\nnew\r\n");
}

#[test]
fn a_half_closed_client_still_gets_its_replies() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, _) = keys();
    h.send(client, request(&["GET", &a]));
    h.eof(client);
    assert!(!h.is_closed(client));
    let server = h.server("127.0.0.1:1");
    h.send(server, "$1\r\nA\r\n");
    assert_eq!(h.take(client), "$1\r\nA\r\n");
    assert!(h.is_closed(client));
}

#[test]
fn a_client_always_uses_the_same_connection_of_a_server() {
    let mut h = Harness::new(&TWO.replace("timeout: 400", "server_connections: 3"));
    let (a, _) = keys();
    let clients: Vec<_> = (0..6).map(|_| h.client()).collect();
    for _ in 0..2 {
        for client in &clients {
            h.send(*client, request(&["GET", &a]));
        }
    }
    assert_eq!(h.connects.len(), 3);
    for (conn, _) in h.connects.clone() {
        assert_eq!(h.take(conn), request(&["GET", &a]).repeat(4));
    }
}

#[test]
fn split_requests_are_joined_in_the_order_of_the_keys() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys();
    h.send(client, request(&["MGET", &b, &a, &b, "", &a]));
    let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    let (to_first, to_second) = (h.take(first), h.take(second));
    // The empty key hashes to 0 and so belongs to the first server.
    assert_eq!(to_first, request(&["MGET", &a, "", &a]));
    assert_eq!(to_second, request(&["MGET", &b, &b]));
    h.send(second, "*2\r\n$2\r\nb1\r\n$2\r\nb2\r\n");
    h.send(first, "*3\r\n$2\r\na1\r\n$-1\r\n$2\r\na2\r\n");
    assert_eq!(h.take(client), "*5\r\n$2\r\nb1\r\n$2\r\na1\r\n$2\r\nb2\r\n$-1\r\n$2\r\na2\r\n");
}

#[test]
fn counts_add_up_and_mset_is_ok_when_every_part_is() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys();
    for command in ["DEL", "UNLINK", "TOUCH", "EXISTS"] {
        h.send(client, request(&[command, &a, &b, &a]));
        let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
        assert_eq!(h.take(first), request(&[command, &a, &a]));
        assert_eq!(h.take(second), request(&[command, &b]));
        h.send(first, ":2\r\n");
        h.send(second, ":1\r\n");
        assert_eq!(h.take(client), ":3\r\n");
    }
    h.send(client, request(&["MSET", &a, "1", &b, "2", &a, "3"]));
    let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    assert_eq!(h.take(first), request(&["MSET", &a, "1", &a, "3"]));
    assert_eq!(h.take(second), request(&["MSET", &b, "2"]));
    h.send(first, "+OK\r\n");
    h.send(second, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
}

#[test]
fn an_error_of_one_part_is_the_reply_with_its_own_words() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys();
    h.send(client, request(&["MGET", &a, &b]) + "PING\r\n");
    let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    h.send(second, "-READONLY You can't write\r\n");
    h.send(first, "*1\r\n$1\r\nA\r\n");
    assert_eq!(h.take(client), "-READONLY You can't write\r\n+PONG\r\n");
}

#[test]
fn a_status_where_an_array_is_due_harms_nobody() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys();
    h.send(client, request(&["MGET", &a, &b]));
    let (first, second) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    h.send(first, "+QUEUED\r\n");
    h.send(second, "*0\r\n");
    assert!(h.take(client).starts_with("-ERR "), "an error, not a loop");
    h.send(client, "PING\r\n");
    assert_eq!(h.take(client), "+PONG\r\n");
}
