//! What there is to see and to do, and who may.

use crate::stats::{ClientFilter, Question};
use crate::wire::http::{Method, Request, Status, is_own_host, is_same_origin, parameter};
use crate::wire::secret::is_same_secret;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The list of all.
    Index,
    /// Prometheus' text format.
    Metrics,
    /// The page that a browser gets instead.
    View,
    /// Everything, for programs.
    Status,
    /// What matters of it, for people.
    StatusText,
    /// Why each master is where it is, for people.
    Explanation,
    /// The same, again and again.
    Events,
    /// The line of the statistics port.
    Stats,
    /// Whether every worker turns.
    Healthz,
    /// Whether every pool can serve.
    Readyz,
    /// The slow requests.
    Slowlog,
    /// Hot keys and big values.
    Keys,
    /// The clients.
    Clients,
    /// Examples of requests as they come.
    Tail,
    /// Forget the slow requests.
    ResetSlowlog,
    /// Begin to watch keys.
    WatchKeys,
    /// Stop watching keys.
    UnwatchKeys,
    /// End clients.
    KillClients,
}

/// One place and what is there.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its path.
    pub path: &'static str,
    /// Whether it changes something, so that it needs POST and the token.
    pub is_change: bool,
    /// What it is.
    pub page: Page,
    /// What it is, in words.
    pub about: &'static str,
}

const fn show(path: &'static str, page: Page, about: &'static str) -> Route {
    Route { path, is_change: false, page, about }
}

const fn change(path: &'static str, page: Page, about: &'static str) -> Route {
    Route { path, is_change: true, page, about }
}

/// Every place.
pub const ROUTES: &[Route] = &[
    show("/", Page::Index, "this list, and for browsers the page that shows it all"),
    show("/metrics", Page::Metrics, "figures for Prometheus"),
    show("/status.json", Page::Status, "everything about pools, servers and workers"),
    show("/status.txt", Page::StatusText, "what matters of it, for people"),
    show(
        "/failovers.txt",
        Page::Explanation,
        "what happened to each master, and what is in the way",
    ),
    show("/events", Page::Events, "the JSON once a second, as a stream of events"),
    show("/stats.json", Page::Stats, "the line of twemproxy's statistics port"),
    show("/healthz", Page::Healthz, "200 if every worker answers, else 503"),
    show("/readyz", Page::Readyz, "200 if clients are taken and every pool can serve, else 503"),
    show("/slowlog.json", Page::Slowlog, "the slow requests of all pools, newest first"),
    show("/keys.json", Page::Keys, "the keys most asked for and the largest values, if watched"),
    show("/clients.json", Page::Clients, "the clients of all pools, or of ?pool=NAME"),
    show("/tail", Page::Tail, "examples of requests as they come, one JSON object a line"),
    change("/slowlog/reset", Page::ResetSlowlog, "forget the slow requests"),
    change("/keys/watch", Page::WatchKeys, "begin to watch keys"),
    change("/keys/unwatch", Page::UnwatchKeys, "stop watching keys and forget what was found"),
    change("/clients/kill", Page::KillClients, "end the clients with ?id=NUMBER or ?addr=IP:PORT"),
];

impl Page {
    /// Returns what the workers have to be asked; `None` if nothing.
    ///
    /// # Errors
    ///
    /// What is wrong with the query.
    pub(super) fn question(self, query: &str) -> Result<Option<Question>, &'static str> {
        Ok(Some(match self {
            Self::Index | Self::View | Self::Events => return Ok(None),
            Self::Metrics
            | Self::Status
            | Self::StatusText
            | Self::Explanation
            | Self::Stats
            | Self::Healthz
            | Self::Readyz => Question::Figures,
            Self::Slowlog => Question::Slow(None),
            Self::ResetSlowlog => Question::ForgetSlow(None),
            Self::Keys => Question::Keys,
            Self::WatchKeys => Question::WatchKeys(true),
            Self::UnwatchKeys => Question::WatchKeys(false),
            Self::Clients => {
                let pool = parameter(query, "pool").map(Into::into);
                Question::Clients(pool, ClientFilter::default())
            }
            Self::Tail => return Ok(None),
            Self::KillClients => Question::Kill(None, kill_filter(query)?),
        }))
    }
}

/// Reads which clients to end. Without a condition it would be all of them, which nobody means.
fn kill_filter(query: &str) -> Result<ClientFilter, &'static str> {
    let mut filter = ClientFilter::default();
    if let Some(id) = parameter(query, "id") {
        filter.ids.push(id.parse().map_err(|_| "id is a number, as /clients.json has it\n")?);
    }
    filter.address = parameter(query, "addr").map(str::to_owned);
    if filter == ClientFilter::default() {
        return Err("say which clients: ?id=NUMBER or ?addr=IP:PORT\n");
    }
    Ok(filter)
}

/// Who may ask for what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What whoever changes something has to know; `None`: nothing can be changed, except over a
    /// unix socket, whose permissions say who may.
    pub token: Option<Vec<u8>>,
    /// Names of this host, besides its addresses and `localhost`.
    pub host_names: Vec<String>,
}

impl Access {
    /// Finds what a request is for, or how it is refused.
    ///
    /// Browsers can't reach a unix socket, so there `Host` may be anything.
    pub(super) fn admit(
        &self,
        request: &Request<'_>,
        is_unix: bool,
    ) -> Result<Page, (Status, &'static str)> {
        if let Some(host) = request.host
            && !is_unix
            && !is_own_host(host, &self.host_names)
        {
            let why = "this host is not known by the name that you asked for; use an address or \
                localhost, or start the service with --admin-host NAME\n";
            return Err((Status::Misdirected, why));
        }
        if let Some(origin) = request.origin
            && !is_same_origin(origin, request.host.unwrap_or_default())
        {
            return Err((Status::Forbidden, "pages of other sites may not ask\n"));
        }
        let route = ROUTES.iter().find(|route| route.path == request.path);
        let Some(route) = route else {
            return Err((Status::NotFound, "there is no such page; / lists them\n"));
        };
        match (request.method, route.is_change) {
            (Method::Get | Method::Head, false) => {
                let is_for_people = route.page == Page::Index && request.takes_html;
                Ok(if is_for_people { Page::View } else { route.page })
            }
            (Method::Post, true) => self.admit_change(request, route.page, is_unix),
            (Method::Post, false) => Err((Status::MethodNotAllowed, "use GET here\n")),
            (Method::Get | Method::Head, true) => {
                Err((Status::MethodNotAllowed, "this changes something: use POST\n"))
            }
            (Method::Other, _) => Err((Status::MethodNotAllowed, "use GET or POST\n")),
        }
    }

    fn admit_change(
        &self,
        request: &Request<'_>,
        page: Page,
        is_unix: bool,
    ) -> Result<Page, (Status, &'static str)> {
        let Some(token) = &self.token else {
            if is_unix {
                return Ok(page);
            }
            let why = "nothing can be changed here: the service was started without \
                --admin-token-file\n";
            return Err((Status::Forbidden, why));
        };
        match request.bearer {
            Some(given) if is_same_secret(token, given.as_bytes()) => Ok(page),
            Some(_) => Err((Status::Unauthorized, "this is not the token\n")),
            None => Err((Status::Unauthorized, "send the token: Authorization: Bearer TOKEN\n")),
        }
    }
}
