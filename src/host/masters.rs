//! Who knows where the masters of the pools' shards are, beside the pools.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use ringkeeper_core::config::sentinel as conf;
use ringkeeper_core::node::{ControlRole, WatchPlan, compose};
use ringkeeper_core::sentinel::follow::FollowSetup;
use ringkeeper_core::sentinel::machine::Setup;
use ringkeeper_core::tls::Plan as Encryption;

use crate::host::sentinel;
use crate::host::sockets::{Fresh, Sockets};
use crate::host::{self, listen, tls};

/// Reads what a Sentinel begins with: its settings, and what it has promised and learnt.
pub(crate) type ReadSetup = Box<dyn Fn() -> Result<Setup, String>>;

/// What is to watch the masters.
pub(crate) enum MastersLaunch {
    /// A Sentinel of this process.
    Own {
        /// Called when the Sentinel begins, and not before: a process that is being replaced may
        /// promise something until then.
        read: ReadSetup,
    },
    /// Sentinels that others run.
    Follow(FollowSetup),
}

impl MastersLaunch {
    /// Opens the listeners that others reach it by, and reads what its encryption needs. Pools are
    /// told where masters are, and speak no TLS to servers, so that with them only clients and
    /// peers that come in may.
    ///
    /// # Errors
    ///
    /// What can't be opened, or what is wrong with the settings.
    pub(crate) fn open(
        &self,
        sockets: &mut Sockets,
        has_pools: bool,
    ) -> anyhow::Result<(Vec<Fresh>, Option<Encryption>)> {
        let Self::Own { read } = self else { return Ok((Vec::new(), None)) };
        let setup = read().map_err(anyhow::Error::msg)?;
        let server = &setup.config.server;
        anyhow::ensure!(
            !(has_pools && server.tls.replication),
            "tls-replication: pools would be sent to the ports where masters speak TLS, and speak \
             none: take it out, or run the Sentinel as a process of its own (ringkeeper run \
             --sentinel FILE)"
        );
        let plain = server.port.unwrap_or(conf::PORT_DEFAULT);
        let mut fresh = open_port(&setup.config, plain, sockets)?;
        let encrypted = open_port(&setup.config, server.tls.port.unwrap_or(0), sockets)?;
        let ids = encrypted.iter().map(|opened| opened.listener.id).collect();
        fresh.extend(encrypted);
        let encryption = tls::plan(&server.tls, ids).context("TLS can't be used")?;
        Ok((fresh, encryption))
    }

    /// Returns what the worker begins with.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings or with what was kept.
    pub(crate) fn plan(&self) -> anyhow::Result<WatchPlan> {
        let seed = host::seed()?;
        match self {
            Self::Own { read } => {
                let setup = read().map_err(anyhow::Error::msg)?;
                let setup = Box::new(sentinel::identify(setup)?);
                Ok(WatchPlan::Own { setup, seed })
            }
            Self::Follow(setup) => Ok(WatchPlan::Follow { setup: Box::new(setup.clone()), seed }),
        }
    }

    /// Returns where the masters were when the state was written, by name.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings or with what was kept.
    pub(crate) fn known(&self) -> anyhow::Result<BTreeMap<String, SocketAddr>> {
        // Who follows knows nothing before the first answer.
        let Self::Own { read } = self else { return Ok(BTreeMap::new()) };
        let setup = read().map_err(anyhow::Error::msg)?;
        Ok(compose::places(&setup.config))
    }
}

/// Opens what the file wants for a port of the Sentinel.
fn open_port(
    config: &conf::Config,
    port: u16,
    sockets: &mut Sockets,
) -> anyhow::Result<Vec<Fresh>> {
    let mut fresh = Vec::new();
    for (is_optional, request) in sentinel::wanted(config, port) {
        match sockets.open_fixed(request, ControlRole::Sentinel) {
            Ok(opened) => {
                let at = listen::endpoint(&opened.listener.socket)?;
                tracing::info!(address = %at, "Sentinels are served");
                fresh.push(opened);
            }
            Err(error) if is_optional => tracing::debug!("{error:#}"),
            Err(error) => return Err(error),
        }
    }
    Ok(fresh)
}
