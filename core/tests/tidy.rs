//! Rules that the compiler does not know, held by reading the sources: who may import whom, where
//! `unsafe` may stand, what belongs to one operating system, how long a file may be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// Lines of a file without its tests.
const LINES_MAX: usize = 800;

/// What each module of the core may import from the core, besides itself. Downward only.
const LAYERS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("time", &[]),
    ("rng", &[]),
    ("id", &["limits"]),
    ("slab", &["limits", "id"]),
    ("buf", &["limits"]),
    ("timer", &["time"]),
    // Counters are values that cross the border, as answers of one worker to another.
    ("stats", &["wire", "id", "time", "rng", "limits"]),
    ("io", &["buf", "id", "time", "stats", "limits"]),
    ("hash", BASE),
    ("wire", BASE),
    ("distribution", &["hash", "buf", "timer", "slab", "id", "io", "time", "rng", "limits"]),
    ("routing", LOW),
    ("command", LOW),
    // It checks a pool by laying out its ring.
    ("config", &["routing", "distribution", "hash", "wire", "id", "time", "rng", "limits"]),
    // Stands between a runtime and any machine.
    ("tls", &["buf", "timer", "id", "io", "time", "limits"]),
    ("proxy", MACHINE),
    ("sentinel", MACHINE),
    ("vrrp", MACHINE),
    ("admin", MACHINE),
    // Its checkers speak it themselves: no client's connection does.
    ("balance", BALANCE),
    // The only place that may know two machines.
    (
        "node",
        &[
            "proxy", "sentinel", "vrrp", "balance", "admin", "routing", "command", "config",
            "stats", "id", "io", "time", "limits",
        ],
    ),
];
const BASE: &[&str] = &["buf", "timer", "slab", "id", "io", "time", "rng", "limits"];
const LOW: &[&str] =
    &["distribution", "hash", "wire", "buf", "timer", "slab", "id", "io", "time", "rng", "limits"];
const MACHINE: &[&str] = &[
    "routing",
    "command",
    "config",
    "stats",
    "distribution",
    "hash",
    "wire",
    "buf",
    "timer",
    "slab",
    "id",
    "io",
    "time",
    "rng",
    "limits",
];
const BALANCE: &[&str] = &[
    "tls",
    "routing",
    "command",
    "config",
    "stats",
    "distribution",
    "hash",
    "wire",
    "buf",
    "timer",
    "slab",
    "id",
    "io",
    "time",
    "rng",
    "limits",
];

/// What the core has no use for: the clock, sockets, threads, files, the environment, and maps
/// whose order differs from run to run.
const NOT_IN_CORE: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os",
    "std::thread",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::fs",
    "std::env",
    "std::process",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "HashMap",
    "HashSet",
    "println",
    "eprintln",
    "thread_local",
];

/// Packages that the core must not depend on.
const NOT_FOR_CORE: &[&str] = &[
    "tokio",
    "io-uring",
    "socket2",
    "rustix",
    "libc",
    "mio",
    "nix",
    "rand",
    "getrandom",
    "fastrand",
    "tracing",
    "rt-tokio",
    "rt-uring",
];

/// The files in which `unsafe` may stand.
const UNSAFE_FILES: &[&str] =
    &["rt-uring/src/ring.rs", "rt-uring/src/buffer.rs", "src/host/sys.rs"];

/// Packages that exist for Linux only.
const LINUX_PACKAGES: &[&str] = &[
    "io-uring",
    "rt-uring",
    "eventfd",
    "inotify",
    "caps",
    "procfs",
    "seccompiler",
    "sd-notify",
    "libsystemd",
    "netlink-sys",
    "netlink-packet-route",
    "netlink-packet-core",
    "rtnetlink",
];

/// Names of calls and constants that Linux alone has.
const LINUX_NAMES: &[&str] = &[
    "io_uring",
    "rt_uring",
    "eventfd",
    "EventFd",
    "signalfd",
    "timerfd",
    "timerfd_create",
    "inotify",
    "fanotify",
    "epoll",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "malloc_trim",
    "mallopt",
    "mallinfo2",
    "sigtimedwait",
    "libc::splice",
    "vmsplice",
    "libc::tee",
    "sendmmsg",
    "recvmmsg",
    "prctl",
    "set_parent_process_death_signal",
    "pidfd_open",
    "memfd_create",
    "unshare",
    "setns",
    "gettid",
    "sched_setaffinity",
    "sched_getaffinity",
    "SO_ATTACH_REUSEPORT_CBPF",
    "SO_ATTACH_REUSEPORT_EBPF",
    "SO_INCOMING_CPU",
    "SO_BINDTODEVICE",
    "SO_BUSY_POLL",
    "SO_PEERCRED",
    "TCP_QUICKACK",
    "TCP_DEFER_ACCEPT",
    "TCP_USER_TIMEOUT",
    "TCP_FASTOPEN_CONNECT",
    "TCP_INFO",
    "AF_PACKET",
    "AF_NETLINK",
    "NETLINK_ROUTE",
    "IP_FREEBIND",
    "IP_TRANSPARENT",
    "RLIMIT_RTTIME",
    "set_tcp_user_timeout",
    "tcp_user_timeout",
    "set_reuse_port_cbpf",
    "bind_device",
    "set_cpu_affinity",
    "set_freebind_v4",
    "set_ip_transparent_v4",
    "set_tcp_quickack",
];

/// Beginnings of paths that Linux alone has.
const LINUX_PATHS: &[&str] = &["\"/proc/", "\"/sys/", "\"/dev/shm"];

/// Parts of the repository that are for Linux as a whole: the comparison with other proxies pins
/// threads and reads the kernel's accounting.
const LINUX_ONLY: &[&str] = &["benches/"];

#[test]
fn the_core_imports_downward_only() {
    let mut problems = Vec::new();
    for file in rust_files("core/src") {
        let module = module_of(&file.path);
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            problems.push(format!("{}: add the module {module} to LAYERS", file.path));
            continue;
        };
        for (line, import) in file.product().crate_imports() {
            if import != module && !allowed.contains(&import.as_str()) {
                problems.push(format!("{}:{line}: {module} imports {import}", file.path));
            }
        }
        // `super` of a file at the top is the whole crate, past the rule above.
        if is_top_module(&file.path) {
            for line in file.product().lines_with("super::") {
                problems.push(format!("{}:{line}: write crate:: instead of super::", file.path));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_core_has_no_clock_sockets_threads_or_chance_of_its_own() {
    let mut problems = Vec::new();
    for file in rust_files("core/src") {
        let code = file.product();
        for name in NOT_IN_CORE {
            for line in code.lines_with_path(name) {
                problems.push(format!("{}:{line}: {name}", file.path));
            }
        }
    }
    for package in dependencies(&read("core/Cargo.toml")) {
        if NOT_FOR_CORE.contains(&package.name.as_str()) {
            problems.push(format!("core/Cargo.toml: {}", package.name));
        }
    }
    assert_none(&problems);
}

#[test]
fn runtimes_know_the_core_and_not_each_other() {
    let mut problems = Vec::new();
    let rules: [(&str, &[&str]); 4] = [
        ("rt-uring", &["tokio", "rt-tokio", "ringkeeper"]),
        ("rt-tokio", &["io-uring", "rt-uring", "ringkeeper"]),
        ("core/sim", &["tokio", "io-uring", "rt-tokio", "rt-uring", "ringkeeper"]),
        ("fuzz", &["tokio", "io-uring", "rt-tokio", "rt-uring", "ringkeeper"]),
    ];
    for (package, refused) in rules {
        for dependency in dependencies(&read(&format!("{package}/Cargo.toml"))) {
            if !dependency.is_dev && refused.contains(&dependency.name.as_str()) {
                problems.push(format!("{package}/Cargo.toml: {}", dependency.name));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn unsafe_stands_in_three_files_and_each_block_is_argued() {
    let mut problems = Vec::new();
    for package in ["core", "rt-tokio"] {
        let root = read(&format!("{package}/src/lib.rs"));
        if !root.contains("#![forbid(unsafe_code)]") {
            problems.push(format!("{package}/src/lib.rs: no forbid(unsafe_code)"));
        }
    }
    for file in rust_files(".") {
        let blocks = file.code().lines_with_word("unsafe");
        if blocks.is_empty() {
            continue;
        }
        if !UNSAFE_FILES.contains(&file.path.as_str()) {
            problems.push(format!("{}:{}: unsafe", file.path, blocks.first().unwrap()));
            continue;
        }
        for line in blocks {
            if !is_argued(&file.text, line) {
                problems.push(format!("{}:{line}: unsafe without SAFETY", file.path));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn what_only_linux_has_stands_behind_its_cfg() {
    let mut problems = Vec::new();
    for file in rust_files(".") {
        let is_exempt = LINUX_ONLY.iter().any(|part| file.path.starts_with(part))
            || is_linux_package(&file.path)
            // It names what it looks for.
            || file.path == "core/tests/tidy.rs";
        if !is_exempt {
            problems.extend(linux_problems(&file));
        }
    }
    for manifest in manifests() {
        let is_exempt = LINUX_ONLY.iter().any(|part| manifest.starts_with(part));
        for dependency in dependencies(&read(&manifest)) {
            let name = dependency.name.as_str();
            if !is_exempt && LINUX_PACKAGES.contains(&name) && !dependency.is_linux {
                problems
                    .push(format!("{manifest}: {name} is not under cfg(target_os = \"linux\")"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_rule_for_linux_fires_on_what_is_not_behind_the_cfg() {
    let planted = [
        ("fn trim() { unsafe { libc::malloc_trim(0) }; }", 1),
        ("fn read() { fs::read(\"/proc/self/statm\"); }", 1),
        ("#[cfg(not(target_os = \"linux\"))]\nfn trim() { malloc_trim(0); }", 1),
        ("#[cfg(any(target_os = \"linux\", unix))]\nfn trim() { malloc_trim(0); }", 1),
        ("#[cfg(target_os = \"linux\")]\nfn a() {}\nfn b() { signalfd(0); }", 1),
        ("#[cfg(target_os = \"linux\")]\nuse a::b;\nuse rustix::event::eventfd;", 1),
        ("#[cfg(target_os = \"linux\")]\nfn trim() { if x { y() } malloc_trim(0); }", 0),
        ("#[cfg(all(feature = \"uring\", target_os = \"linux\"))]\nuse io_uring::IoUring;", 0),
        ("#![cfg(target_os = \"linux\")]\nfn f() { epoll::wait(); }", 0),
        ("// malloc_trim gives memory back; see /proc/self.\nfn trim() {}", 0),
        ("fn say() { print(\"epoll, signalfd\"); }", 0),
    ];
    for (text, expected) in planted {
        let file = Source { path: "src/planted.rs".into(), text: text.into() };
        assert_eq!(linux_problems(&file).len(), expected, "{text}");
    }
    let manifest = "[dependencies]\nio-uring = \"1\"\n\
                    [target.'cfg(target_os = \"linux\")'.dependencies]\ncaps.workspace = true\n";
    let found: Vec<_> =
        dependencies(manifest).into_iter().map(|found| (found.name, found.is_linux)).collect();
    assert_eq!(found, [("io-uring".to_owned(), false), ("caps".to_owned(), true)]);
}

#[test]
fn files_stay_short() {
    let mut problems = Vec::new();
    for file in rust_files(".") {
        let is_test = file.path.contains("/tests/") || file.path.starts_with("tests/");
        if is_test || file.path.ends_with("/tests.rs") {
            continue;
        }
        let lines = file.text.lines().take_while(|line| *line != "mod tests {").count();
        if lines > LINES_MAX {
            problems.push(format!("{}: {lines} lines without tests", file.path));
        }
    }
    assert_none(&problems);
}

#[test]
fn nothing_refers_to_one_machine_or_to_a_tracker() {
    let mut problems = Vec::new();
    // In two pieces, so that this file does not refer to them either.
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    for path in files(".", &["rs", "md", "toml", "yml", "sh", ""]) {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let is_hit =
                places.iter().any(|place| line.contains(place)) || is_tracker_reference(line);
            if is_hit {
                problems.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&problems);
}

/// Tells whether a line has a number sign followed by digits, as trackers name their entries.
fn is_tracker_reference(line: &str) -> bool {
    line.split('#').skip(1).any(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let next = rest.as_bytes().get(digits).copied();
        (1..=5).contains(&digits) && !next.is_some_and(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Returns what in a file belongs to Linux and is not behind its cfg.
fn linux_problems(file: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let gated = file.linux_lines();
    let mut note = |line: usize, what: &str| {
        if !gated.contains(&line) {
            problems.push(format!("{}:{line}: {what}", file.path));
        }
    };
    let code = file.code();
    for name in LINUX_NAMES {
        for line in code.lines_with_word(name) {
            note(line, name);
        }
    }
    let code = file.code_and_strings();
    for path in LINUX_PATHS {
        for line in code.lines_with(path) {
            note(line, path);
        }
    }
    problems
}

/// Tells whether a file is part of what is behind the cfg as a whole: a package's library, or what
/// its tests share. The tests themselves need the cfg, for each is a program of its own.
fn is_linux_package(path: &str) -> bool {
    let inside = path.split_once("/src/").or_else(|| path.split_once("/tests/common/"));
    inside.is_some_and(|(package, _)| {
        fs::read_to_string(root().join(package).join("src/lib.rs"))
            .is_ok_and(|text| text.contains("#![cfg(target_os = \"linux\")]"))
    })
}

/// Tells whether the lines just above an `unsafe`, or its documentation, say why it is sound.
fn is_argued(text: &str, line: usize) -> bool {
    /// How far a comment may be above: a long argument and the beginning of a statement.
    const REACH: usize = 16;
    let above: Vec<&str> = text.lines().take(line).collect();
    above.iter().rev().take(REACH).any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

/// A line of a manifest that names another package.
struct Dependency {
    name: String,
    is_dev: bool,
    is_linux: bool,
}

/// Reads the packages that a manifest depends on; enough of TOML for ours.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').replace(['\\', '\'', '"', ' '], "");
            continue;
        }
        let is_list = section.ends_with("dependencies") && !section.starts_with("workspace");
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
        if is_list && !name.is_empty() && !name.starts_with('#') && line.contains('=') {
            found.push(Dependency {
                name: name.to_owned(),
                is_dev: section.ends_with("dev-dependencies"),
                is_linux: section.contains("cfg(target_os=linux)"),
            });
        }
    }
    found
}

fn module_of(path: &str) -> &str {
    let inner = path.strip_prefix("core/src/").unwrap_or(path);
    inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
}

fn is_top_module(path: &str) -> bool {
    let inner = path.strip_prefix("core/src/").unwrap_or(path);
    !inner.contains('/') || (inner.ends_with("/mod.rs") && inner.matches('/').count() == 1)
}

fn manifests() -> Vec<String> {
    files(".", &["toml"]).into_iter().filter(|path| path.ends_with("Cargo.toml")).collect()
}

fn rust_files(below: &str) -> Vec<Source> {
    let found = files(below, &["rs"]);
    assert!(!found.is_empty(), "no sources below {below}");
    found.into_iter().map(|path| Source { text: read(&path), path }).collect()
}

/// Returns the paths, relative to the root, of the files below a folder that have one of the
/// extensions, what is built or given by others left out.
fn files(below: &str, extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let is_foreign =
                    ["target", "vectors", "corpus", "artifacts", "coverage"].contains(&&*name);
                if !is_foreign && !name.starts_with(".git") {
                    folders.push(path);
                }
            } else {
                let extension = path.extension().unwrap_or_default().to_string_lossy();
                if extensions.contains(&&*extension) && name != ".git" {
                    let inner = path.strip_prefix(root()).unwrap();
                    let inner = inner.strip_prefix(".").unwrap_or(inner);
                    found.push(inner.to_string_lossy().into_owned());
                }
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
