//! Where metrics, status and administration are served, and what is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ringkeeper_core::admin::{Access, AdminPlan, AdminRole, Facts};
use ringkeeper_core::config::nutcracker::{Listen, ListenAddress};
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::node::{ControlPlan, ControlRole, WatchPlan};
use ringkeeper_core::stats::FiguresPlan;

use crate::host::listen::{Address, Request};
use crate::host::sockets::{Fresh, Sockets};

/// Where it is by default; loopback, because whoever gets there sees keys.
const HOST: &str = "127.0.0.1";
const PORT: u16 = 22280;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Shortest and longest token, bytes. A shorter one could be guessed.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;

/// Who may use a unix socket unless the folder keeps them out.
const SOCKET_MODE: u32 = 0o600;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminPlace {
    /// Nowhere.
    Off,
    /// There.
    At(Address),
}

impl AdminPlace {
    /// Returns the place that a configuration names.
    pub(crate) fn of(listen: Option<&Listen>) -> Self {
        let Some(listen) = listen else { return Self::Off };
        Self::At(match &listen.address {
            ListenAddress::Tcp(at) => Address::Tcp { host: at.host.clone(), port: at.port },
            ListenAddress::Unix { path, mode } => {
                Address::Unix { path: path.into(), mode: mode.or(Some(SOCKET_MODE)) }
            }
        })
    }
}

impl Default for AdminPlace {
    fn default() -> Self {
        Self::At(Address::Tcp { host: HOST.to_owned(), port: PORT })
    }
}

/// What is wrong with a place or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl FromStr for AdminPlace {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const EXPECTED: Malformed = Malformed("write HOST:PORT, unix:PATH or off");
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(EXPECTED);
            }
            return Ok(Self::At(Address::Unix { path: path.into(), mode: Some(SOCKET_MODE) }));
        }
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| EXPECTED)?;
        if host.is_empty() {
            return Err(EXPECTED);
        }
        Ok(Self::At(Address::Tcp { host: host.to_owned(), port }))
    }
}

/// From when on a request is slow; `None` for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlowAfter(pub(crate) Option<Duration>);

impl FromStr for SlowAfter {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "off" {
            return Ok(Self(None));
        }
        let millis = text.parse::<u32>().map_err(|_| Malformed("write milliseconds, or off"))?;
        Ok(Self(Some(Duration::from_millis(u64::from(millis)))))
    }
}

/// What the operator wants of administration and figures.
#[derive(Clone, Debug)]
pub(crate) struct AdminLaunch {
    /// Where to listen.
    pub(crate) place: AdminPlace,
    /// Whether the service must not start without it.
    pub(crate) required: bool,
    /// What whoever changes something must know.
    pub(crate) token: Option<Vec<u8>>,
    /// Names by which this host may be asked.
    pub(crate) host_names: Vec<String>,
    /// What is counted.
    pub(crate) figures: FiguresPlan,
}

impl Default for AdminLaunch {
    /// Nothing is served; everything is counted.
    fn default() -> Self {
        Self {
            place: AdminPlace::Off,
            required: false,
            token: None,
            host_names: Vec::new(),
            figures: FiguresPlan::default(),
        }
    }
}

impl AdminLaunch {
    /// Opens the listener, if one is wanted.
    ///
    /// # Errors
    ///
    /// The operator named a place where nothing can be opened.
    pub(crate) fn open(&self, sockets: &mut Sockets) -> anyhow::Result<Option<Fresh>> {
        let AdminPlace::At(address) = &self.place else { return Ok(None) };
        let is_unix = matches!(address, Address::Unix { .. });
        let request = Request {
            purpose: "administration".to_owned(),
            address: address.clone(),
            backlog: BACKLOG,
            reuseport: false,
        };
        let role = ControlRole::Admin(AdminRole::Http { is_unix });
        match sockets.open_fixed(request, role) {
            Ok(fresh) => Ok(Some(fresh)),
            Err(error) if self.required => Err(error),
            Err(error) => {
                tracing::warn!("running without metrics and administration: {error}");
                Ok(None)
            }
        }
    }

    /// Makes the plan of the worker that serves it.
    pub(crate) fn plan(
        &self,
        facts: Facts,
        workers: u16,
        listeners: BTreeMap<ListenerId, ControlRole>,
        watch: Option<WatchPlan>,
        has_routers: bool,
    ) -> ControlPlan {
        let mut host_names = self.host_names.clone();
        host_names.push(facts.host_name.clone());
        let access = Access { token: self.token.clone(), host_names };
        let admin = Some(Arc::new(AdminPlan { facts, access, workers }));
        ControlPlan { listeners, admin, watch, overseen: has_routers.then_some(workers) }
    }
}

/// Reads a token from a file: its bytes, without the line end.
///
/// # Errors
///
/// The file can't be read, or what is in it is no good token.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = fs::File::open(path);
    let bytes_max = u64::try_from(*TOKEN_BYTES.end()).unwrap_or(u64::MAX).saturating_add(2);
    file.and_then(|file| file.take(bytes_max).read_to_end(&mut text))
        .with_context(|| format!("the token file {} can't be read", path.display()))?;
    let token = text.trim_ascii_end().to_vec();
    let is_good = TOKEN_BYTES.contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
    anyhow::ensure!(
        is_good,
        "the token in {} must be {} to {} characters without spaces; `openssl rand -hex 32` makes \
         a good one",
        path.display(),
        TOKEN_BYTES.start(),
        TOKEN_BYTES.end()
    );
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn tcp(host: &str, port: u16) -> AdminPlace {
        AdminPlace::At(Address::Tcp { host: host.to_owned(), port })
    }

    #[test]
    fn places_are_hosts_with_ports_paths_or_nowhere() {
        assert_eq!("off".parse(), Ok(AdminPlace::Off));
        assert_eq!("127.0.0.1:80".parse(), Ok(tcp("127.0.0.1", 80)));
        assert_eq!("[::1]:80".parse(), Ok(tcp("::1", 80)));
        assert_eq!("db:0".parse(), Ok(tcp("db", 0)));
        let socket = Address::Unix { path: PathBuf::from("/run/x"), mode: Some(SOCKET_MODE) };
        assert_eq!("unix:/run/x".parse(), Ok(AdminPlace::At(socket)));
        for bad in ["", "80", ":80", "host", "host:", "host:x", "host:70000", "unix:"] {
            assert!(bad.parse::<AdminPlace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_milliseconds_or_none() {
        assert_eq!("off".parse(), Ok(SlowAfter(None)));
        assert_eq!("0".parse(), Ok(SlowAfter(Some(Duration::ZERO))));
        assert_eq!("25".parse(), Ok(SlowAfter(Some(Duration::from_millis(25)))));
        assert!("-1".parse::<SlowAfter>().is_err());
    }
}
