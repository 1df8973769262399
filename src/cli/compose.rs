//! Puts a process together: pools, whoever knows where their masters are, and virtual routers, from
//! one file or from the files of the programs that did this before.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use ringkeeper_core::config::native::{self, Own, Watch};
use ringkeeper_core::config::nutcracker::{Config, HostPort};
use ringkeeper_core::config::sentinel as conf;
use ringkeeper_core::node::compose::{self, Asked};
use ringkeeper_core::sentinel::follow::FollowSetup;
use ringkeeper_core::sentinel::machine::{NameBase, Setup};

#[cfg(target_os = "linux")]
use crate::cli::keepalived;
use crate::cli::load::{self, Loaded};
use crate::cli::sentinel::{self, State};
use crate::host::masters::MastersLaunch;
use crate::host::routers::Routers;
use crate::host::runtime::Choice;
use crate::host::sentinel::with_users;
use crate::host::service::{Reading, Reread};

/// The file in the service's folder where a Sentinel keeps what it learns.
const STATE_NAME: &str = "sentinel.state";

/// The pools and who knows where their masters are.
pub(super) struct Parts {
    /// The pools' file; without an old one's, that of the whole.
    pub(super) loaded: Loaded,
    /// Who knows where masters are.
    pub(super) masters: Option<MastersLaunch>,
    /// Reads the pools again.
    pub(super) reread: Reread,
}

/// Reads the file of the pools, and the `sentinel.conf` that stands beside it if there is one.
///
/// # Errors
///
/// What to tell the operator. Mistakes in the file of the pools are not among them: they are in
/// what is returned.
pub(super) fn read(pools: &Path, sentinel_file: Option<&Path>) -> Result<Parts, String> {
    let mut loaded = load::read(pools);
    let Some(file) = sentinel_file else {
        let masters = masters_of(&loaded, pools)?;
        return Ok(Parts { loaded, masters, reread: load::reread(pools) });
    };
    if loaded.settings.sentinel.is_some() {
        return Err(format!(
            "error: both {} and {} say how masters are watched; take the section \"sentinel\" away, \
             or --sentinel\n",
            pools.display(),
            file.display()
        ));
    }
    let path = file.to_owned();
    let read_setup = move || sentinel::read(&path, "", State::Beside).map(|read| read.setup);
    let setup = read_setup()?;
    if let Some(config) = &mut loaded.config {
        attach(config, file, &setup.config);
    }
    let asked = Asked::by(loaded.config.as_ref());
    let (pools, path) = (pools.to_owned(), file.to_owned());
    let reread: Reread = Box::new(move || {
        let mut loaded = load::read(&pools);
        loaded.log();
        if let (Some(config), Ok(read)) =
            (&mut loaded.config, sentinel::read(&path, "", State::Beside))
        {
            attach(config, &path, &read.setup.config);
        }
        Reading { text: loaded.human(), config: loaded.config, settings: loaded.settings }
    });
    let read = move || read_setup().map(|setup| asked.put_into(setup));
    let masters = Some(MastersLaunch::Own { read: Box::new(read) });
    Ok(Parts { loaded, masters, reread })
}

/// Finds out which server is which master: by what the file says, and by what was learnt since.
fn attach(config: &mut Config, file: &Path, learnt: &conf::Config) {
    let name = file.display().to_string();
    let written = fs::read(file).ok().and_then(|text| conf::parse_bytes(&name, &text).config);
    if let Some(written) = &written {
        native::attach(config, &written.masters);
    }
    native::attach(config, &learnt.masters);
}

/// Returns who knows where masters are by the file of the whole.
fn masters_of(loaded: &Loaded, path: &Path) -> Result<Option<MastersLaunch>, String> {
    match &loaded.settings.sentinel {
        None => Ok(None),
        Some(Watch::Own(own)) => {
            let state = state_of(own, loaded, path);
            let (own, path) = (own.clone(), path.to_owned());
            let asked = Asked::by(loaded.config.as_ref());
            let read = move || setup(&own, &path, state.clone(), &asked);
            Ok(Some(MastersLaunch::Own { read: Box::new(read) }))
        }
        Some(Watch::Follow(follow)) => {
            let address = |at: &HostPort| conf::Address::new(&at.host, at.port).ok();
            Ok(Some(MastersLaunch::Follow(FollowSetup {
                shards: follow.shards.clone(),
                sentinels: follow.sentinels.iter().filter_map(address).collect(),
                user: follow.user.clone(),
                password: follow.password.clone(),
                fence: Some(follow.fence),
                names: NameBase::default(),
            })))
        }
    }
}

/// Returns where a Sentinel keeps what it learns.
fn state_of(own: &Own, loaded: &Loaded, path: &Path) -> PathBuf {
    if let Some(state) = &own.state {
        return loaded.beside(state);
    }
    // systemd writes several folders with colons between.
    let folder = env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty());
    let folder = folder.and_then(|all| env::split_paths(&all).next());
    folder.map_or_else(|| sentinel::state_beside(path), |folder| folder.join(STATE_NAME))
}

fn setup(own: &Own, path: &Path, state: PathBuf, asked: &Asked) -> Result<Setup, String> {
    let state = std::path::absolute(&state).unwrap_or(state);
    let setup = compose::setup(own, path.display().to_string());
    let setup = with_users(setup).map_err(|error| format!("{error:#}"))?;
    sentinel::with_state(setup, state).map(|setup| asked.put_into(setup))
}

/// Prepares the virtual routers that are wanted beside the rest.
///
/// # Errors
///
/// Their file has errors; the log says which.
#[cfg(target_os = "linux")]
pub(super) fn routers(
    path: Option<&Path>,
    loaded: Option<&Loaded>,
    runtime: Option<Choice>,
) -> Result<Option<Routers>, ()> {
    let own = loaded.and_then(|loaded| Some((loaded.path(), loaded.settings.vrrp.clone()?)));
    let runtime = runtime.unwrap_or_default();
    match (path, own) {
        (Some(path), None) => keepalived::beside(path, runtime).ok_or(()).map(Some),
        (None, Some((path, config))) => Ok(Some(keepalived::beside_own(path, config, runtime))),
        (Some(_), Some(_)) => {
            tracing::error!("--keepalived and \"vrrp\" in the file: one of them has to go");
            Err(())
        }
        (None, None) => Ok(None),
    }
}

/// Virtual routers need what only Linux has.
#[cfg(not(target_os = "linux"))]
pub(super) fn routers(
    path: Option<&Path>,
    loaded: Option<&Loaded>,
    _: Option<Choice>,
) -> Result<Option<Routers>, ()> {
    if path.is_none() && loaded.is_none_or(|loaded| loaded.settings.vrrp.is_none()) {
        return Ok(None);
    }
    tracing::error!("virtual routers are for Linux only");
    Err(())
}
