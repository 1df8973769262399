//! Checkers, and what their verdicts lead to.

use std::time::Duration;

use ringkeeper_core::io::{BalanceNews, ChannelSpec, CloseMode, Exit, Input, Trouble};
use ringkeeper_core::limits;
use ringkeeper_core::time::Instant;

use crate::lab::{Lab, Mood, server, text};

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::START + SECOND * u32::try_from(seconds).unwrap()
}

/// Says of each server whether it is up.
fn up(lab: &Lab) -> Vec<bool> {
    lab.worker.balancer().figures().map(|figures| figures.is_up).collect()
}

fn weights(lab: &Lab) -> Vec<u32> {
    lab.worker.balancer().figures().map(|figures| figures.weight).collect()
}

/// The tutorial's check, without the chance at its start.
const TUTORIAL: &str = "TCP_CHECK {\n connect_timeout 3\n retry 3\n delay_before_retry 3\n warmup 0\n delay_loop 3\n }";

#[test]
fn a_server_is_down_after_all_retries_and_up_after_one_success() {
    let mut lab = Lab::new(&text("", &[TUTORIAL]));
    lab.advance(SECOND * 10);
    let client = lab.client();
    let times: Vec<Instant> = lab.attempts.iter().map(|(_, at)| *at).collect();
    assert_eq!(times[..4], [at(0), at(3), at(6), at(9)]);
    lab.moods.insert(server(1), Mood::Refuses);
    // The first failure at 12, then three more, three seconds apart.
    lab.advance(SECOND * 10);
    assert_eq!(up(&lab), [true]);
    lab.advance(SECOND);
    assert_eq!((up(&lab), lab.now), (vec![false], at(21)));
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort), "its clients do not hang");
    let detail = "connection refused".to_owned();
    let down = BalanceNews::ServerDown { server: server(1), detail, closed: 1 };
    assert!(lab.news().contains(&&down), "{:?}", lab.news());
    assert_eq!(lab.try_client_from([192, 168, 0, 1]), None);
    lab.moods.insert(server(1), Mood::Takes);
    lab.advance(SECOND * 3);
    assert_eq!(up(&lab), [true]);
    assert!(lab.try_client_from([192, 168, 0, 1]).is_some());
}

#[test]
fn a_silent_server_fails_by_its_time_out() {
    let check = "TCP_CHECK {\n connect_timeout 2\n retry 0\n warmup 0\n delay_loop 5\n }";
    let mut lab = Lab::new(&text("", &[check]));
    lab.moods.insert(server(1), Mood::IsSilent);
    lab.advance(SECOND);
    assert_eq!(up(&lab), [true]);
    lab.advance(SECOND);
    assert_eq!(up(&lab), [false]);
}

#[test]
fn the_first_check_comes_within_the_warmup() {
    let check = "TCP_CHECK {\n warmup 7\n delay_loop 20\n }";
    let mut lab = Lab::new(&text("", &[check; 20]));
    lab.advance(SECOND * 7);
    assert_eq!(lab.attempts.len(), 20);
    let mut times: Vec<_> = lab.attempts.iter().map(|(_, at)| *at).collect();
    times.dedup();
    assert!(times.len() > 15, "they are scattered");
}

#[test]
fn with_alpha_a_server_has_to_prove_itself() {
    let check = "TCP_CHECK {\n alpha\n warmup 0\n delay_loop 1\n retry 0\n }";
    let mut lab = Lab::new(&text("", &[check]));
    assert_eq!(up(&lab), [false]);
    assert_eq!(lab.try_client_from([192, 168, 0, 1]), None);
    lab.advance(Duration::from_millis(1));
    assert_eq!(up(&lab), [true]);
}

#[test]
fn all_checkers_of_a_server_must_be_content() {
    let other = "TCP_CHECK {\n connect_port 80\n retry 0\n warmup 0\n delay_loop 1\n }";
    let both = format!("{TUTORIAL}\n {other}");
    let mut lab = Lab::new(&text("", &[&both]));
    lab.moods.insert("10.0.0.1:80".parse().unwrap(), Mood::Refuses);
    lab.advance(SECOND);
    assert_eq!(up(&lab), [false]);
}

#[test]
fn an_inhibited_server_keeps_its_connections_and_gets_no_new_ones() {
    let check = "TCP_CHECK {\n retry 0\n warmup 0\n delay_loop 1\n }";
    let inhibited = format!("inhibit_on_failure\n {check}");
    let mut lab = Lab::new(&text("lb_algo rr", &[&inhibited, check]));
    let client = lab.client();
    lab.moods.insert(server(1), Mood::Refuses);
    lab.advance(SECOND * 2);
    assert_eq!(up(&lab), [false, true]);
    assert_eq!(lab.wires[&client].closed, None);
    for _ in 0..3 {
        let client = lab.client();
        assert_eq!(lab.server_of(client), server(2));
    }
}

#[test]
fn the_quorum_is_lost_and_gained_beyond_its_hysteresis() {
    let check = "TCP_CHECK {\n retry 0\n warmup 0\n delay_loop 1\n delay_before_retry 1\n }";
    let body = "quorum 3\n hysteresis 1\n sorry_server 10.0.0.99 80\n quorum_up /bin/up\n \
                quorum_down /bin/down";
    let mut lab = Lab::new(&text(body, &[check; 5]));
    let sorry = "10.0.0.99:80".parse().unwrap();
    assert_eq!(lab.exit(Exit::Code(0)), "/bin/up");
    let serves_after = |lab: &mut Lab, number: u8, mood: Mood| {
        lab.moods.insert(server(number), mood);
        lab.advance(SECOND * 2);
        let client = lab.client();
        lab.server_of(client) == sorry
    };
    // 5 live servers, then 4, 3, 2: still within the hysteresis.
    for number in 1..=3 {
        assert!(!serves_after(&mut lab, number, Mood::Refuses), "{number}");
    }
    let client = lab.client();
    assert!(serves_after(&mut lab, 4, Mood::Refuses), "one is too few");
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort), "the live one is taken out too");
    assert_eq!(lab.exit(Exit::Code(0)), "/bin/down");
    assert!(serves_after(&mut lab, 4, Mood::Takes), "2");
    assert!(serves_after(&mut lab, 3, Mood::Takes), "3 is not enough to come back");
    assert!(!serves_after(&mut lab, 2, Mood::Takes), "4 is");
    assert_eq!(lab.exit(Exit::Code(0)), "/bin/up");
}

#[test]
fn programs_are_told_one_after_the_other_and_the_newest_state_wins() {
    let check = "notify_up /bin/up\n notify_down \"/bin/down 'a b'\"\n TCP_CHECK {\n retry 0\n \
                 warmup 0\n delay_loop 1\n delay_before_retry 1\n }";
    let mut lab = Lab::new(&text("", &[check]));
    for mood in [Mood::Refuses, Mood::Takes, Mood::Refuses, Mood::Takes] {
        lab.moods.insert(server(1), mood);
        lab.advance(SECOND * 2);
    }
    assert_eq!(lab.jobs.len(), 1, "one at a time");
    assert_eq!(lab.exit(Exit::Code(3)), "/bin/down a b");
    assert_eq!(lab.exit(Exit::Code(0)), "/bin/up");
    assert!(lab.jobs.is_empty());
    let failed = BalanceNews::ProgramFailed {
        program: "/bin/down a b".to_owned(),
        detail: "exit code 3".to_owned(),
    };
    assert!(lab.news().contains(&&failed));
}

#[test]
fn a_program_decides_by_its_exit_code_and_may_set_the_weight() {
    let check = "weight 5\n MISC_CHECK {\n misc_path /bin/check\n misc_dynamic\n misc_timeout 2\n \
                 warmup 0\n delay_loop 10\n delay_before_retry 10\n }";
    let mut lab = Lab::new(&text("", &[check, ""]));
    let run = |lab: &mut Lab, exit: Exit| {
        while lab.jobs.is_empty() {
            lab.advance(SECOND);
        }
        assert_eq!(lab.exit(exit), "/bin/check");
        (up(lab)[0], weights(lab)[0])
    };
    assert_eq!(run(&mut lab, Exit::Code(0)), (true, 5));
    assert_eq!(run(&mut lab, Exit::Code(12)), (true, 10));
    assert_eq!(run(&mut lab, Exit::Code(1)), (false, 10));
    assert_eq!(run(&mut lab, Exit::Code(2)), (true, 0));
    assert_eq!(run(&mut lab, Exit::Signal(11)), (false, 0));
    assert_eq!(run(&mut lab, Exit::NotStarted("gone".to_owned())), (false, 0));
    assert_eq!(run(&mut lab, Exit::Code(255)), (true, 253));
    // Too slow: asked to end, made to end, failed.
    lab.advance(SECOND * 15);
    let job = lab.jobs[0].0;
    assert_eq!(lab.kills, [(job, limits::SIGTERM), (job, limits::SIGKILL)]);
    lab.exit(Exit::Signal(9));
    assert!(!up(&lab)[0]);
}

#[test]
fn names_and_echoes_are_asked_for_by_datagrams() {
    let often = "warmup 0\n delay_loop 10\n retry 0\n connect_timeout 2";
    let dns = format!("DNS_CHECK {{\n type A\n name a.example\n {often}\n }}");
    let ping = format!("PING_CHECK {{\n {often}\n }}");
    let mut lab = Lab::new(&text("", &[&dns, &ping, ""]));
    lab.advance(Duration::from_millis(1));
    let specs: Vec<_> = lab.channels.iter().map(|(_, spec)| spec.clone()).collect();
    let to = server(1);
    assert_eq!(specs, [ChannelSpec::Udp { to }, ChannelSpec::Ping { to: server(2).ip() }]);
    let [(names, question), (echoes, request)] = &lab.datagrams[..] else { panic!() };
    let (names, echoes) = (*names, *echoes);
    let (mut answer, mut reply) = (question.clone(), request.clone());
    answer[2] |= 0x80;
    reply[0] = 0;
    lab.give(Input::Datagram { channel: names, bytes: b"noise" });
    lab.give(Input::Datagram { channel: names, bytes: &answer });
    lab.give(Input::Datagram { channel: echoes, bytes: &reply });
    assert_eq!(up(&lab), [true, true, true]);
    assert!(lab.channels.is_empty());
    // SERVFAIL, and no answer at all.
    lab.datagrams.clear();
    lab.advance(SECOND * 10);
    let (names, mut answer) = lab.datagrams[0].clone();
    answer[2] |= 0x80;
    answer[3] = 2;
    lab.give(Input::Datagram { channel: names, bytes: &answer });
    assert_eq!(up(&lab), [false, true, true]);
    lab.advance(SECOND * 2);
    assert_eq!(up(&lab), [false, false, true]);
}

#[test]
fn a_number_in_a_file_counts_at_once() {
    let file = "track_file f {\n file /run/f\n }\n";
    let check = "weight 10\n FILE_CHECK {\n track_file f\n weight 2\n warmup 0\n }";
    let plain = "FILE_CHECK {\n track_file f\n warmup 0\n }";
    let mut lab = Lab::new(&(file.to_owned() + &text("", &[check, plain, ""])));
    lab.advance(Duration::from_millis(1));
    let channels: Vec<_> = lab.channels.iter().map(|(channel, _)| *channel).collect();
    let say = |lab: &mut Lab, bytes: &[u8]| {
        for &channel in &channels {
            lab.give(Input::Datagram { channel, bytes });
        }
        (up(lab)[0], weights(lab)[0], up(lab)[1])
    };
    assert_eq!(say(&mut lab, b"0\n"), (true, 10, true));
    assert_eq!(say(&mut lab, b"-3\n"), (true, 4, false));
    assert_eq!(say(&mut lab, b"-200"), (false, 10, false));
    assert_eq!(say(&mut lab, b"\n"), (true, 10, true));
    // A watch that ends is begun again.
    lab.give(Input::Trouble { channel: channels[0], trouble: Trouble::Ended(0) });
    lab.advance(SECOND * 2);
    assert_eq!(lab.channels.len(), 2);
}

#[test]
fn pages_and_redis_are_spoken_to() {
    let often = "warmup 0\n delay_loop 10\n retry 0\n connect_timeout 2";
    let http = format!("HTTP_GET {{\n {often}\n url {{\n path /up\n }}\n }}");
    let redis = format!("REDIS_CHECK {{\n {often}\n role master\n }}");
    let mut lab = Lab::new(&text("", &[&http, &redis, ""]));
    lab.advance(Duration::from_millis(1));
    let (pages, questions) = (lab.link_to(server(1)), lab.link_to(server(2)));
    assert!(lab.wires[&pages].written.starts_with(b"GET /up HTTP/1.0\r\n"));
    assert_eq!(lab.wires[&questions].written, b"*1\r\n$4\r\nROLE\r\n");
    lab.give(Input::Received { conn: pages, bytes: b"HTTP/1.0 200 OK\r\n\r\n" });
    lab.give(Input::Eof { conn: pages });
    let replica = b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";
    lab.give(Input::Received { conn: questions, bytes: replica });
    assert_eq!(up(&lab), [true, false, true]);
    assert_eq!(lab.wires[&pages].closed, Some(CloseMode::Flush));
    // One that says nothing is given up.
    lab.advance(SECOND * 13);
    assert_eq!(up(&lab), [false, false, true]);
}

#[test]
fn a_server_that_clients_cannot_reach_is_checked_at_once() {
    let check = "TCP_CHECK {\n retry 0\n warmup 0\n delay_loop 3600\n }";
    let mut lab = Lab::new(&text("lb_algo rr", &[check, check]));
    lab.advance(SECOND * 5);
    lab.moods.insert(server(1), Mood::Refuses);
    let client = lab.client();
    assert_eq!(lab.server_of(client), server(2));
    assert!(lab.news().contains(&&BalanceNews::Unreachable { server: server(1) }));
    lab.advance(Duration::from_millis(1));
    assert_eq!(up(&lab), [false, true]);
}
