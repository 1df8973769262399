//! The binary with a `ringkeeper.yml`: it serves what the file says, imports the old form, and
//! writes its own man pages and completions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use support::fake::{Fake, Step};
use support::resp::{Client, Place, Reply};
use support::{Scratch, eventually, free_port, stderr, stdout};

const OLD: &str = "\
alpha:
  listen: 127.0.0.1:22121
  redis: true
  redis_auth: s3cret
  servers:
   - 127.0.0.1:6379:1
   - 127.0.0.1:6380:2 two
";

#[test]
fn an_import_checks_clean_and_routes_as_before() {
    let scratch = Scratch::new();
    scratch.write("nutcracker.yml", OLD);
    let output = scratch.run("ringkeeper", &["import", "nutcracker.yml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    scratch.write("ringkeeper.yml", &stdout(&output));
    let check = scratch.run("ringkeeper", &["check", "--strict", "ringkeeper.yml"]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
    let route = |file: &str| {
        let keys = ["a", "b", "c", "user:{1}", "user:2"];
        let arguments = [["route", "-c", file].as_slice(), keys.as_slice()].concat();
        stdout(&scratch.run("ringkeeper", &arguments))
    };
    assert!(route("nutcracker.yml").contains("shard"));
    assert_eq!(route("nutcracker.yml"), route("ringkeeper.yml"));
    // What is no file of twemproxy's is not touched.
    let again = scratch.run("ringkeeper", &["import", "ringkeeper.yml"]);
    assert_eq!((again.status.code(), stdout(&again).len()), (Some(1), 0));
    scratch.write("bad.yml", "alpha:\n  lisen: a:1\n");
    let bad = scratch.run("ringkeeper", &["import", "bad.yml"]);
    assert_eq!((bad.status.code(), stdout(&bad).len()), (Some(1), 0));
    assert!(stderr(&bad).contains("did you mean"), "{}", stderr(&bad));
}

#[test]
fn check_tells_the_mistakes_of_both_forms() {
    let scratch = Scratch::new();
    scratch.write(
        "ringkeeper.yml",
        "pools:\n  alpha:\n    listen: 127.0.0.1:1\n    timout: 1 s\n    servers:\n      - a:1\n",
    );
    let output = scratch.run("ringkeeper", &["check", "ringkeeper.yml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("ringkeeper.yml:4:5") && text.contains("timeout"), "{text}");
}

#[test]
fn a_pool_is_served_as_the_file_says_and_options_say_more() {
    let server = Fake::start(|words| match words[0].as_slice() {
        b"AUTH" => Step::say("+OK\r\n"),
        _ => Step::say("$2\r\nhi\r\n"),
    });
    let scratch = Scratch::new();
    let port = free_port();
    scratch.write("secret", "s3cret\n");
    fs::set_permissions(scratch.path("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    let file = format!(
        "stats:\n  listen: off\nlog:\n  format: json\n  file: log\n  level: debug\npools:\n  alpha:\n    \
         listen: 127.0.0.1:{port}\n    redis_auth_file: secret\n    servers:\n      - name: one\n        \
         address: {}\n",
        server.place
    );
    scratch.write("ringkeeper.yml", &file);
    let mut process = scratch.start("ringkeeper", &["run", "-c", "ringkeeper.yml"]);
    scratch.wait_for("log", "listening");
    for line in scratch.read("log").lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    assert!(!scratch.read("log").contains("statistics are served"));
    let mut client = Client::connect(&Place::Tcp(([127, 0, 0, 1], port).into())).unwrap();
    assert!(client.ask(&["GET", "a"]).is_error(), "the password counts");
    assert_eq!(client.ask(&["AUTH", "s3cret"]), Reply::ok());
    assert_eq!(client.ask(&["GET", "a"]), Reply::bulk("hi"));
    assert_eq!(server.seen_text()[0], ["AUTH", "s3cret"]);
    drop(client);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));

    let arguments = ["run", "-c", "ringkeeper.yml", "--log-file", "other", "--log-format", "text"];
    let _process = scratch.start("ringkeeper", &[&arguments[..], &["--stats-port", "0"]].concat());
    scratch.wait_for("other", "statistics are served");
}

#[test]
fn a_password_that_cannot_be_read_stops_the_start_and_an_open_one_is_told() {
    let scratch = Scratch::new();
    let file = format!(
        "stats:\n  listen: off\npools:\n  alpha:\n    listen: 127.0.0.1:{}\n    \
         redis_auth_file: secret\n    servers:\n      - 127.0.0.1:1\n",
        free_port()
    );
    scratch.write("ringkeeper.yml", &file);
    // Nothing but the file itself is opened for a check, which may run elsewhere.
    let check = scratch.run("ringkeeper", &["check", "ringkeeper.yml"]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
    let mut process = scratch.start("ringkeeper", &["run", "-c", "ringkeeper.yml"]);
    assert_eq!(process.wait().code(), Some(1));
    let told = scratch.read("stderr");
    assert!(told.contains("ringkeeper.yml:6:22") && told.contains("No such file"), "{told}");
    scratch.write("secret", "s3cret\n");
    fs::set_permissions(scratch.path("secret"), PermissionsExt::from_mode(0o644)).unwrap();
    let _process = scratch.start("ringkeeper", &["run", "-c", "ringkeeper.yml"]);
    scratch.wait_for("stderr", "listening");
    assert!(scratch.read("stderr").contains("everybody on this host may read"));
    assert!(!scratch.read("stderr").contains("s3cret"));
}

#[test]
fn a_changed_file_is_taken_up_while_it_serves_and_says_what_waits() {
    let scratch = Scratch::new();
    let (first, second) = (free_port(), free_port());
    let file = |head: &str, port: u16| {
        format!(
            "control: control.sock\nstats:\n  listen: off\n{head}pools:\n  alpha:\n    listen: \
             127.0.0.1:{port}\n    servers:\n      - 127.0.0.1:1\n"
        )
    };
    scratch.write("ringkeeper.yml", &file("threads: 2\n", first));
    let _process = scratch.start("ringkeeper", &["run", "-c", "ringkeeper.yml"]);
    scratch.wait_for("stderr", "commands are taken");
    assert!(scratch.read("stderr").contains("threads=2"), "{}", scratch.read("stderr"));
    let reload = || scratch.run("ringkeeper", &["reload", "--control", "control.sock"]);
    scratch.write("ringkeeper.yml", &file("threads: 3\nlimits:\n  drain_timeout: 1 s\n", second));
    let told = reload();
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    let text = stdout(&told);
    assert!(
        text.contains("changed alpha") && text.contains("at the next start: threads"),
        "{text}"
    );
    let connect = |port: u16| Client::connect(&Place::Tcp(([127, 0, 0, 1], port).into()));
    assert!(connect(second).is_ok());
    // A file with mistakes changes nothing and says why.
    scratch.write("ringkeeper.yml", &file("thread: 3\n", first));
    let told = reload();
    assert_eq!(told.status.code(), Some(1));
    assert!(stderr(&told).contains("did you mean \"threads\"?"), "{}", stderr(&told));
    assert!(connect(second).is_ok());
}

#[test]
fn man_pages_and_completions_know_every_command_and_option() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run("ringkeeper", &["man", "man"]).status.code(), Some(0));
    let help = stdout(&scratch.run("ringkeeper", &["--help"]));
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .collect();
    assert!(commands.contains(&"run") && commands.contains(&"import"), "{help}");
    let completions = |shell: &str| stdout(&scratch.run("ringkeeper", &["completions", shell]));
    let page = scratch.read("man/ringkeeper.1");
    for command in &commands {
        assert!(page.contains(command), "{command}");
        let page = scratch.read(&format!("man/ringkeeper-{command}.1"));
        assert!(page.contains(".SH NAME"), "{command}: {page}");
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            assert!(completions(shell).contains(command), "{command} in {shell}");
        }
    }
    let run = scratch.read("man/ringkeeper-run.1");
    let options = stdout(&scratch.run("ringkeeper", &["run", "--help"]));
    let lines = options.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    for option in
        lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
    {
        let name = option.trim_start_matches('-').trim_end_matches([',', ']', '.']);
        assert!(run.contains(&name.replace('-', "\\-")), "{name} in the page of run");
    }
    assert!(eventually("a page is not empty", || Some(page.len())) > 500);
}
