//! Commands that the proxy answers or refuses, under both names.

use ringkeeper_core::proxy::Policy;

use crate::harness::{Harness, request};

const TWO: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  hash_tag: \"{}\"
  distribution: modula
  servers:
    - 127.0.0.1:1:1 a
    - 127.0.0.1:2:1 b
";

fn answer(args: &[&str]) -> String {
    let mut h = Harness::new(TWO);
    let client = h.client();
    h.send(client, request(args));
    assert!(!h.is_closed(client) || args == ["QUIT"], "{args:?}");
    assert!(h.connects.is_empty(), "{args:?} reached a server");
    h.take(client)
}

#[test]
fn the_connections_own_commands_are_answered_here() {
    assert_eq!(answer(&["PING"]), "+PONG\r\n");
    assert_eq!(answer(&["ping", "hi"]), "$2\r\nhi\r\n");
    assert_eq!(answer(&["ECHO", "hi"]), "$2\r\nhi\r\n");
    assert_eq!(answer(&["QUIT"]), "+OK\r\n");
    assert_eq!(answer(&["SELECT", "0"]), "+OK\r\n");
    assert!(answer(&["SELECT", "1"]).starts_with("-ERR this pool is database 0 only"));
    assert_eq!(answer(&["HELLO", "4"]), "-NOPROTO unsupported protocol version\r\n");
    assert!(answer(&["HELLO", "3"]).starts_with("%7\r\n$6\r\nserver\r\n"));
    assert!(answer(&["HELLO", "2", "SETNAME", "me"]).starts_with("*14\r\n$6\r\nserver\r\n"));
    assert!(answer(&["HELLO"]).contains("$5\r\nproto\r\n:2\r\n"));
    assert_eq!(answer(&["CLIENT", "SETNAME", "me"]), "+OK\r\n");
    assert_eq!(answer(&["CLIENT", "GETNAME"]), "$-1\r\n");
    assert_eq!(answer(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"]), "+OK\r\n");
    assert_eq!(answer(&["CLIENT", "NO-EVICT", "on"]), "+OK\r\n");
    assert!(answer(&["CLIENT", "ID"]).starts_with(':'));
    assert!(answer(&["CLIENT", "REPLY", "OFF"]).starts_with("-ERR CLIENT REPLY is not supported"));
    assert_eq!(answer(&["TIME"]), "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n");
    assert!(answer(&["INFO"]).contains("ringkeeper_version:"));
    assert!(answer(&["COMMAND", "COUNT"]).starts_with(':'));
    assert_eq!(answer(&["AUTH", "x"]), "-ERR Client sent AUTH, but no password is set\r\n");
}

#[test]
fn what_would_harm_other_clients_is_refused_and_the_connection_lives() {
    let refused: &[&[&str]] = &[
        &["BLPOP", "k", "0"],
        &["XREAD", "BLOCK", "0", "STREAMS", "s", "$"],
        &["MULTI"],
        &["EXEC"],
        &["WATCH", "k"],
        &["SUBSCRIBE", "c"],
        &["SSUBSCRIBE", "c"],
        &["PSUBSCRIBE", "c"],
        &["MONITOR"],
        &["MIGRATE", "h", "1", "k", "0", "1"],
        &["WAIT", "1", "1"],
        &["CLIENT", "TRACKING", "on"],
        &["FLUSHALL"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["SCRIPT", "LOAD", "x"],
        &["CONFIG", "GET", "*"],
        &["NOSUCHCOMMAND"],
        &["GET"],
        &["GET", "a", "b"],
        &["MSET", "a"],
        &["MSET", "a", "1", "b"],
        &["EVAL", "return 1", "x", "k"],
    ];
    for args in refused {
        let reply = answer(args);
        assert!(reply.starts_with("-ERR "), "{args:?}: {reply}");
        assert_eq!(reply.matches("\r\n").count(), 1);
    }
}

#[test]
fn keys_on_different_servers_are_refused_where_the_answer_would_be_wrong() {
    let spread: &[&[&str]] = &[
        &["RENAME", "k0", "k1"],
        &["SUNION", "k0", "k1"],
        &["ZUNION", "2", "k0", "k1"],
        &["ZUNIONSTORE", "k0", "2", "k0", "k1"],
        &["EVAL", "return 1", "2", "k0", "k1"],
        &["SMOVE", "k0", "k1", "m"],
        &["PFCOUNT", "k0", "k1"],
        &["MSETNX", "k0", "1", "k1", "2"],
        &["LMOVE", "k0", "k1", "LEFT", "LEFT"],
    ];
    for args in spread {
        let reply = answer(args);
        assert!(reply.starts_with("-CROSSSLOT "), "{args:?}: {reply}");
    }
    for args in [["SUNION", "{t}k0", "{t}k1"], ["RENAME", "{t}k0", "{t}k1"]] {
        let mut h = Harness::new(TWO);
        let client = h.client();
        h.send(client, request(&args));
        assert_eq!(h.connects.len(), 1);
        let server = h.connects[0].0;
        assert_eq!(h.take(server), request(&args));
    }
}

#[test]
fn the_greetings_of_usual_clients_are_answered() {
    // Jedis and Lettuce are written after their documentation, not recorded; go-redis is recorded
    // below, and redis-py itself is run by the black-box tests.
    let greetings = [
        // Jedis
        "*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nlib-name\r\n$5\r\njedis\r\n\
         *4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$7\r\nlib-ver\r\n$5\r\n6.2.0\r\n",
        // Lettuce
        "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n\
         *4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nlib-name\r\n$7\r\nLettuce\r\n\
         *4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$7\r\nlib-ver\r\n$5\r\n6.8.1\r\n",
    ];
    for greeting in greetings {
        let mut h = Harness::new(TWO);
        let client = h.client();
        h.send(client, greeting);
        let reply = h.take(client);
        let is_resp3 = greeting.to_lowercase().contains("hello");
        assert_eq!(reply.starts_with("%7\r\n"), is_resp3, "{reply}");
        assert!(reply.ends_with("+OK\r\n+OK\r\n"), "{greeting}: {reply}");
        h.send(client, "*1\r\n$4\r\nPING\r\n");
        assert_eq!(h.take(client), "+PONG\r\n");
    }
}

#[test]
fn the_recorded_greeting_of_go_redis_is_answered() {
    let file = include_str!("../vectors/greetings/go-redis-9.18.0.json");
    let recording: serde_json::Value = serde_json::from_str(file).unwrap();
    let [hello, names] = recording["writes"].as_array().unwrap().as_slice() else {
        panic!("{recording}");
    };
    let mut h = Harness::new(TWO);
    let client = h.client();
    h.send(client, hello.as_str().unwrap());
    assert!(h.take(client).starts_with("%7\r\n"));
    h.send(client, names.as_str().unwrap());
    assert_eq!(h.take(client), "+OK\r\n+OK\r\n");
    h.send(client, request(&["ping"]));
    assert_eq!(h.take(client), "+PONG\r\n");
}

#[test]
fn inline_commands_work_for_people_with_telnet() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    h.send(client, "\r\nPING\r\nset {a}k \"a b\"\n");
    assert_eq!(h.take(client), "+PONG\r\n");
    let server = h.connects[0].0;
    assert_eq!(h.take(server), request(&["set", "{a}k", "a b"]));
}

#[test]
fn a_browser_is_shown_the_door() {
    for bytes in ["POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n", "*1\r\n$5\r\nHost:\r\n"] {
        let mut h = Harness::new(TWO);
        let client = h.client();
        h.send(client, bytes);
        assert!(h.is_closed(client));
        assert_eq!(h.take(client), "");
        assert!(h.connects.is_empty());
    }
}

#[test]
fn broken_frames_are_named_and_end_the_connection_after_what_was_due() {
    for (bytes, complaint) in [
        ("*2 \r\n", "invalid multibulk length"),
        ("*4294967298\r\n", "invalid multibulk length"),
        ("*2\r\n$03\r\nGET\r\n", "invalid bulk length"),
        ("*2\r\n$4294967297\r\nG", "invalid bulk length"),
        ("*2\r\n:3\r\n", "expected '$', got ':'"),
    ] {
        let mut h = Harness::new(TWO);
        let client = h.client();
        h.send(client, request(&["GET", "k0"]) + bytes);
        assert!(!h.is_closed(client), "a reply is due");
        let server = h.connects[0].0;
        assert_eq!(h.take(server), request(&["GET", "k0"]));
        h.send(server, "$-1\r\n");
        assert_eq!(h.take(client), format!("$-1\r\n-ERR Protocol error: {complaint}\r\n"));
        assert!(h.is_closed(client));
    }
}

#[test]
fn nothing_is_served_before_the_password() {
    let mut h = Harness::new(&TWO.replace("redis: true", "redis: true\n  redis_auth: pw"));
    let client = h.client();
    for args in [&["GET", "a"][..], &["PING"], &["NOSUCH"], &["MGET", "a", "b"]] {
        h.send(client, request(args));
        assert_eq!(h.take(client), "-NOAUTH Authentication required.\r\n");
    }
    h.send(client, request(&["AUTH", "wrong"]));
    assert!(h.take(client).starts_with("-WRONGPASS "));
    h.send(client, request(&["AUTH", "default", "pw"]));
    assert_eq!(h.take(client), "+OK\r\n");
    h.send(client, "PING\r\n");
    assert_eq!(h.take(client), "+PONG\r\n");
    h.send(client, request(&["AUTH", "wrong"]) + "PING\r\n");
    assert!(h.take(client).ends_with("-NOAUTH Authentication required.\r\n"));
    let client = h.client();
    h.send(client, request(&["HELLO", "2", "AUTH", "default", "pw"]) + "PING\r\n");
    assert!(h.take(client).ends_with("+PONG\r\n"));
    assert!(h.connects.is_empty());
}

#[test]
fn as_nutcracker_bad_requests_close_without_a_word() {
    let bad: &[&str] = &[
        "*1\r\n$3\r\nFOO\r\n",
        "*1\r\n$3\r\nGET\r\n",
        "PING\r\n",
        "\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*2\r\n$3\r\nGET\r\n$-1\r\n",
        "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n",
        "*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n",
        "*2\r\n$4\r\nPING\r\n$1\r\nx\r\n",
        "*2\r\n$7\r\nCOMMAND\r\n$5\r\nCOUNT\r\n",
        "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n",
    ];
    for bytes in bad {
        let mut h = Harness::with_policy(TWO, Policy::NUTCRACKER);
        let client = h.client();
        h.send(client, request(&["GET", "a"]) + bytes);
        assert!(h.is_closed(client), "{bytes:?}");
        assert_eq!(h.take(client), "");
    }
    let mut h = Harness::with_policy(TWO, Policy::NUTCRACKER);
    let client = h.client();
    h.send(client, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n");
    assert_eq!(h.take(client), "+PONG\r\n");
    assert!(h.is_closed(client));
}

#[test]
fn clients_of_resp3_have_server_connections_of_their_own() {
    let mut h = Harness::new(TWO);
    let (old, new) = (h.client(), h.client());
    h.send(old, request(&["GET", "{a}"]));
    h.send(new, request(&["HELLO", "3"]) + &request(&["HGETALL", "{a}"]));
    assert!(h.take(new).starts_with("%7\r\n"));
    assert_eq!(h.connects.len(), 2);
    let (resp2, resp3) = (h.connects[0].0, h.connects[1].0);
    assert_eq!(h.take(resp2), request(&["GET", "{a}"]));
    assert_eq!(h.take(resp3), request(&["HELLO", "3"]), "requests wait for the answer");
    h.send(resp3, "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
    assert_eq!(h.take(resp3), request(&["HGETALL", "{a}"]));
    h.send(resp3, ">2\r\n+invalidate\r\n*0\r\n%1\r\n+f\r\n_\r\n");
    h.send(resp2, "$-1\r\n");
    assert_eq!(h.take(new), "%1\r\n+f\r\n_\r\n");
    assert_eq!(h.take(old), "$-1\r\n");
}

#[test]
fn a_change_of_the_protocol_waits_for_what_is_under_way() {
    let mut h = Harness::new(TWO);
    let client = h.client();
    h.send(
        client,
        request(&["SET", "{a}", "1"]) + &request(&["HELLO", "3"]) + &request(&["SET", "{a}", "2"]),
    );
    assert_eq!(h.connects.len(), 1, "the second write must not overtake the first");
    let resp2 = h.connects[0].0;
    assert_eq!(h.take(resp2), request(&["SET", "{a}", "1"]));
    h.send(resp2, "+OK\r\n");
    assert!(h.take(client).starts_with("+OK\r\n%7\r\n"));
    let resp3 = h.connects[1].0;
    h.take(resp3);
    h.send(resp3, "%0\r\n");
    assert_eq!(h.take(resp3), request(&["SET", "{a}", "2"]));
}
