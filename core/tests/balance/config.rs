//! What a keepalived.conf says about virtual servers.

use std::time::Duration;

use ringkeeper_core::config::keepalived::{
    self, Check, Config, Cover, HttpVersion, Persistence, RedisRole, Scheduler,
};

fn read(text: &str) -> (Config, Vec<&'static str>) {
    let parsed = keepalived::parse(text, "host");
    let codes = parsed.diagnostics.iter().map(|one| one.code).collect();
    (parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)), codes)
}

#[test]
fn the_tutorial_is_read() {
    let (config, codes) = read(include_str!("../../../tests/tutorial/keepalived-a.conf"));
    assert_eq!(codes, ["missing-mask"]);
    let [service] = &config.virtual_servers[..] else { panic!("{config:?}") };
    assert_eq!(service.name, "192.168.223.136:6379");
    assert_eq!(service.scheduler, Scheduler::RoundRobin);
    assert_eq!(service.persistence.unwrap().timeout, Duration::from_secs(50));
    let [server] = &service.servers[..] else { panic!("{service:?}") };
    assert_eq!(server.address, "192.168.223.128:22121".parse().unwrap());
    let timing = server.checkers[0].timing;
    assert_eq!(server.checkers[0].check, Check::Tcp);
    assert_eq!((timing.retry, timing.delay_loop), (3, Duration::from_secs(3)));
    assert_eq!((timing.timeout, timing.warmup), (Duration::from_secs(3), Duration::from_secs(3)));
}

#[test]
fn every_keyword_takes_effect_and_what_is_closer_wins() {
    let text = "track_file f { file /run/f }\n\
        virtual_server_group g {\n 10.0.0.100-101 80\n fd00::1 80\n}\n\
        virtual_server group g {\n lvs_sched mh\n mh-port\n mh-fallback\n protocol TCP\n\
        persistence_timeout\n persistence_granularity 255.255.255.0\n delay_loop 6\n retry 2\n\
        connect_timeout 1.5\n virtualhost www.example\n quorum 2\n hysteresis 1\n omega\n\
        sorry_server 10.0.0.9 80\n sorry_server_inhibit\n proxy_protocol\n inhibit_on_failure\n\
        quorum_up \"/bin/up 'a b'\" user group\n\
        real_server 10.0.0.1 8080 {\n weight 7\n uthreshold 10\n lthreshold 5\n retry 4\n\
        inhibit_on_failure off\n HTTP_GET {\n retry 1\n http_protocol 1.1\n url {\n path /a\n\
        digest 9b3a0c85a887a256d6939da88aabd8cd\n status_code 200-204 301\n }\n\
        url {\n path /b\n virtualhost other\n regex \"a.c\"\n regex_options caseless\n }\n }\n\
        MISC_CHECK {\n misc_path \"/bin/check -x\"\n misc_timeout 3\n misc_dynamic\n user nobody\n }\n\
        DNS_CHECK {\n type MX\n name example.\n }\n PING_CHECK {\n connect_ip 10.0.0.77\n }\n\
        FILE_CHECK {\n track_file f\n weight 3 reverse\n }\n\
        REDIS_CHECK {\n role replica\n auth_user u\n auth_pass p\n sentinel 10.0.0.5 26379\n\
        sentinel_master m\n }\n }\n real_server 10.0.0.2 8080 {\n TCP_CHECK {\n connect_port 81\n\
        alpha\n }\n }\n}\n";
    let (config, codes) = read(text);
    assert_eq!(codes, Vec::<&str>::new());
    let service = &config.virtual_servers[0];
    let listen: Vec<_> = service.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["10.0.0.100:80", "10.0.0.101:80", "[fd00::1]:80"]);
    assert!(service.hashes_port && service.falls_back && service.sends_proxy && service.has_omega);
    let timeout = Duration::from_secs(360);
    assert_eq!(service.persistence, Some(Persistence { timeout, bits_v4: 24, bits_v6: 128 }));
    assert!(service.sorry.unwrap().is_inhibited);
    let [first, second] = &service.servers[..] else { panic!("{service:?}") };
    assert_eq!((first.weight, first.upper, first.lower, first.is_inhibited), (7, 10, 5, false));
    assert!(second.is_inhibited && second.checkers[0].starts_down);
    assert_eq!(second.checkers[0].address, "10.0.0.2:81".parse().unwrap());
    let retries: Vec<_> = first.checkers.iter().map(|checker| checker.timing.retry).collect();
    assert_eq!(retries, [1, 4, 4, 4, 4, 4]);
    let Check::Http { urls, version: HttpVersion::V1_1, cover: Cover::Plain } =
        &first.checkers[0].check
    else {
        panic!("{first:?}")
    };
    assert_eq!(urls[0].host.as_deref(), Some("www.example"));
    assert_eq!(
        (&urls[0].status[..], urls[0].digest.unwrap()[0]),
        (&[200..=204, 301..=301][..], 0x9b)
    );
    assert_eq!(urls[1].host.as_deref(), Some("other"));
    assert!(urls[1].regex.as_ref().unwrap().compile().unwrap().is_match(b"xABCx"));
    let Check::Misc { command, is_dynamic: true, .. } = &first.checkers[1].check else { panic!() };
    assert_eq!((command.argv.len(), command.user.as_ref().unwrap().name.as_str()), (2, "nobody"));
    assert_eq!(first.checkers[2].check, Check::Dns { kind: 15, name: "example.".to_owned() });
    assert_eq!(first.checkers[3].address.ip().to_string(), "10.0.0.77");
    assert_eq!(first.checkers[4].check, Check::File { path: "/run/f".to_owned(), weight: -3 });
    let Check::Redis(redis) = &first.checkers[5].check else { panic!() };
    assert_eq!((redis.role, redis.master.as_str()), (RedisRole::Replica, "m"));
    assert_eq!(config.commands().count(), 2);
}

#[test]
fn what_is_not_served_is_told_by_name_and_the_rest_runs() {
    let good = "real_server 10.0.0.1 80 {\n TCP_CHECK { }\n }";
    let one = |head: &str, body: &str| format!("virtual_server {head} {{\n {body}\n {good}\n}}\n");
    for (text, served, expected) in [
        (one("fwmark 3", "protocol TCP"), 0, &["fwmark-not-served"][..]),
        (one("10.0.0.100 80", "protocol UDP"), 0, &["protocol-not-served"]),
        (one("10.0.0.100 80", ""), 1, &["missing-protocol"]),
        (one("10.0.0.100", "protocol TCP"), 0, &["missing-port"]),
        (one("group none", "protocol TCP"), 0, &["unknown-server-group"]),
        (one("10.0.0.100 80", "protocol TCP\n lvs_method DR"), 1, &["method-without-effect"]),
        (one("10.0.0.100 80", "protocol TCP\n lb_algo lblc"), 1, &["scheduler-replaced"]),
        (one("10.0.0.100 80", "protocol TCP\n ha_suspend"), 1, &["keyword-without-effect"]),
        (one("10.0.0.100 80", "protocol TCP\n hysteresis 1"), 1, &["hysteresis-too-large"]),
        (one("10.0.0.100 80", "protocol TCP\n delay_lop 1"), 1, &["unknown-keyword"]),
    ] {
        let (config, codes) = read(&text);
        assert_eq!((config.virtual_servers.len(), &codes[..]), (served, expected), "{text}");
    }
    let checks = |check: &str| {
        let body = format!("protocol TCP\n real_server 10.0.0.2 80 {{\n {check}\n }}");
        let (config, codes) = read(&format!("virtual_server 10.0.0.100 80 {{\n {body}\n}}\n"));
        (config.virtual_servers[0].servers[0].checkers.len(), codes)
    };
    assert_eq!(checks("UDP_CHECK { }"), (0, vec!["no-checker", "check-without-effect"]));
    assert_eq!(checks("SMTP_CHECK { }"), (1, vec!["check-replaced"]));
    assert_eq!(checks("HTTP_GET { }"), (0, vec!["no-checker", "missing-url"]));
    let url = "HTTP_GET {\n url {\n path \"/a b\"\n regex \"(?=x)\"\n status_code 99\n }\n }";
    assert_eq!(checks(url), (1, vec!["invalid-path", "regex-not-understood", "invalid-status"]));
    let twice = one("10.0.0.100 80", "protocol TCP").repeat(2);
    assert_eq!(read(&twice).1, ["duplicate-virtual-server"]);
}
