//! The workloads and the limits that the product set itself for them.

use crate::data::{LARGE, MIXED, SMALL, Space};

/// What the clients of a workload ask for.
#[derive(Clone, Copy, Debug)]
pub enum Requests {
    /// GET of one key.
    Get,
    /// MGET of this many keys; it counts as one request.
    Mget(usize),
    /// GET, and SET in this share of a hundred.
    GetAndSet(u64),
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Short name, as in the tables.
    pub name: &'static str,
    /// What it is, in words.
    pub about: &'static str,
    /// Connections to the program under test.
    pub clients: usize,
    /// Requests that a client sends at once; the next ones go out when all are answered.
    pub depth: usize,
    /// What is asked.
    pub requests: Requests,
    /// Which keys.
    pub space: Space,
    /// Highest CPU per request of the io_uring runtime, as a share of nutcracker's.
    pub must: Option<f64>,
    /// The share that is aimed at.
    pub aim: Option<f64>,
}

/// What latencies, slow log and examples may cost: CPU per request with them, of that without.
pub const FIGURES_MUST: f64 = 1.03;
/// What is aimed at.
pub const FIGURES_AIM: f64 = 1.02;

/// Highest CPU per request of the tokio runtime as a multiple of the io_uring runtime's.
pub const TOKIO_MUST: f64 = 1.20;
/// The multiple that is aimed at.
pub const TOKIO_AIM: f64 = 1.12;

/// Highest CPU per request of two workers on two cores as a multiple of one worker's on one, and of
/// two processes of one worker each on the same cores.
pub const PAIR_MUST: f64 = 1.10;
/// The multiple that is aimed at.
pub const PAIR_AIM: f64 = 1.05;

const BASE: Workload = Workload {
    name: "a",
    about: "50 clients, GET 64 B",
    clients: 50,
    depth: 1,
    requests: Requests::Get,
    space: SMALL,
    must: Some(0.78),
    aim: Some(0.70),
};

/// Workloads with fake servers, where the proxy is the bottleneck.
pub const SATURATED: [Workload; 6] = [
    BASE,
    Workload {
        name: "c",
        about: "500 clients, GET 64 B",
        clients: 500,
        must: Some(0.62),
        aim: Some(0.55),
        ..BASE
    },
    Workload {
        name: "b",
        about: "50 clients pipelining 16, GET 64 B",
        depth: 16,
        must: Some(0.28),
        aim: Some(0.22),
        ..BASE
    },
    Workload {
        name: "e",
        about: "50 clients, GET 16 KiB",
        space: LARGE,
        must: Some(0.90),
        aim: Some(0.85),
        ..BASE
    },
    Workload {
        name: "m",
        about: "50 clients, MGET of 10 x 64 B",
        requests: Requests::Mget(10),
        must: Some(0.65),
        aim: Some(0.60),
        ..BASE
    },
    Workload {
        name: "s",
        about: "50 clients, GET/SET 80/20, 16 B to 4 KiB",
        requests: Requests::GetAndSet(20),
        space: MIXED,
        must: None,
        aim: None,
        ..BASE
    },
];

/// Workloads in memcached's protocol, with fake servers. No limits are set here.
pub const MEMCACHED: [Workload; 4] = {
    let base = Workload { must: None, aim: None, ..BASE };
    [
        Workload { about: "50 clients, get 64 B", ..base },
        Workload { name: "b", about: "50 clients pipelining 16, get 64 B", depth: 16, ..base },
        Workload {
            name: "m",
            about: "50 clients, get of 10 x 64 B",
            requests: Requests::Mget(10),
            ..base
        },
        Workload {
            name: "s",
            about: "50 clients, get/set 80/20, 16 B to 4 KiB",
            requests: Requests::GetAndSet(20),
            space: MIXED,
            ..base
        },
    ]
};

/// Workloads with real servers, where the proxy also sleeps and wakes. No limits are set here.
pub const REAL: [Workload; 7] = {
    let mut real = [BASE; 7];
    let mut at = 0;
    while at < SATURATED.len() {
        real[at] = SATURATED[at];
        real[at].must = None;
        real[at].aim = None;
        at += 1;
    }
    real[at].name = "d";
    real[at].about = "1 client, GET 64 B";
    real[at].clients = 1;
    real[at].must = None;
    real[at].aim = None;
    real
};
