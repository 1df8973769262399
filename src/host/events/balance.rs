//! Lines about virtual servers.

use ringkeeper_core::io::BalanceNews;

/// Logs what happened to a virtual server.
pub(crate) fn log(service: &str, news: &BalanceNews) {
    match news {
        BalanceNews::ServerUp { server, detail } => {
            tracing::info!(service, %server, "server is up: {detail}");
        }
        BalanceNews::ServerDown { server, detail, closed } => {
            tracing::warn!(service, %server, closed, "server is down: {detail}");
        }
        BalanceNews::Weight { server, weight } => {
            tracing::info!(service, %server, weight, "a check has changed the server's weight");
        }
        BalanceNews::Unreachable { server } => {
            tracing::warn!(service, %server, "server does not take clients; it is checked now");
        }
        BalanceNews::QuorumGained { weight } => {
            tracing::info!(service, weight, "enough servers are up");
        }
        BalanceNews::QuorumLost { weight } => {
            tracing::warn!(service, weight, "too few servers are up");
        }
        BalanceNews::Sorry { server, is_serving: true } => {
            tracing::warn!(service, %server, "the sorry server serves");
        }
        BalanceNews::Sorry { server, is_serving: false } => {
            tracing::info!(service, %server, "the sorry server is not needed any more");
        }
        BalanceNews::ClientRefused { clients } => {
            tracing::warn!(service, clients, "client refused: no server can take it");
        }
        BalanceNews::ProgramFailed { program, detail } => {
            tracing::warn!(program, "a program that is told of servers failed: {detail}");
        }
    }
}
