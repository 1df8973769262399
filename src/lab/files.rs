//! What the programs of a node read.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use super::deployment::Deployment;
use super::network::{ADMIN_PORT, Host, REDIS_PORT, SENTINEL_PORT};
use super::recipe::{NODES, Peer, SHARDS};

impl Deployment {
    /// Writes all files of a node.
    ///
    /// # Errors
    ///
    /// One cannot be written.
    pub(super) fn configure(&self, node: Host) -> io::Result<()> {
        let place = self.place(node);
        fs::write(place.join("ringkeeper.yml"), self.ringkeeper_yml(node))?;
        fs::write(place.join("keepalived.conf"), self.keepalived_conf(node))?;
        fs::write(place.join("sentinel.conf"), self.sentinel_conf(node))?;
        if !self.recipe.is_glued {
            return Ok(());
        }
        fs::write(place.join("nutcracker.yml"), self.nutcracker_yml())?;
        for (name, text) in [("moved", MOVED), ("alive", ALIVE)] {
            let path = place.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn ringkeeper_yml(&self, node: Host) -> String {
        let own = self.network.address(node);
        // Of the loopback interface each host has one address only.
        let listen = match self.network.shared() {
            Some(_) => "0.0.0.0".to_owned(),
            None => own.to_string(),
        };
        let control = self.control(node);
        let mut text = format!(
            "control: {}\nthreads: 1\nadmin:\n  listen: {listen}:{ADMIN_PORT}\nstats:\n  listen: \
             off\n",
            control.display(),
        );
        text.push_str(&self.sentinel_section(node, &listen));
        text.push_str(&self.vrrp_section(node));
        text.push_str(&format!(
            "pools:\n  lab:\n    listen: {listen}:{REDIS_PORT}\n    hash_tag: \"{{}}\"\n    \
             timeout: {} ms\n",
            self.timeout_ms,
        ));
        if let Some(copies) = self.recipe.replicated {
            text.push_str(&format!("    replicated: {copies}\n"));
        }
        text.push_str("    servers:\n");
        for (shard, name) in SHARDS.iter().enumerate() {
            let Some(master) = self.first_master(shard) else { continue };
            text.push_str(&format!("      - name: {name}\n        address: {master}\n"));
        }
        text
    }

    fn sentinel_section(&self, node: Host, listen: &str) -> String {
        let own = self.network.address(node);
        let follows = self.recipe.has(node, Peer::Sentinel);
        let mut text = match follows {
            true => "sentinel:\n  mode: follow\n  follow:\n".to_owned(),
            false => format!(
                "sentinel:\n  mode: own\n  listen: {listen}:{SENTINEL_PORT}\n  announce: \
                 {own}:{SENTINEL_PORT}\n  down_after: {} ms\n  failover_timeout: 6 s\n  fast_down: \
                 {}\n  hosts:\n",
                self.recipe.down_after.as_millis(),
                self.recipe.has_fast_down,
            ),
        };
        for host in NODES {
            let address = self.network.address(host);
            match follows {
                true => text.push_str(&format!("    - {address}:{SENTINEL_PORT}\n")),
                false => text.push_str(&format!("    - {address}\n")),
            }
        }
        text
    }

    /// Returns a node's priority for the shared address.
    pub(super) fn priority(node: Host) -> usize {
        let at = NODES.iter().position(|one| *one == node).unwrap_or_default();
        250_usize.saturating_sub(10 * at)
    }

    fn vrrp_section(&self, node: Host) -> String {
        let Some(shared) = self.network.shared() else { return String::new() };
        if self.recipe.has(node, Peer::Keepalived) {
            return String::new();
        }
        // Whoever has the address keeps it: a node that returns disturbs nobody.
        format!(
            "vrrp:\n  lab:\n    interface: e0\n    id: 78\n    addresses: {shared}/24\n    \
             priority: {}\n    interval: {} ms\n    preempt: false\n",
            Self::priority(node),
            self.recipe.advert.as_millis(),
        )
    }

    /// Returns what a genuine keepalived reads: the same.
    fn keepalived_conf(&self, node: Host) -> String {
        let Some(shared) = self.network.shared() else { return String::new() };
        let (script, track) = match self.recipe.is_glued {
            true => (
                format!(
                    "vrrp_script alive {{\n    script {}\n    interval 1\n    timeout 1\n}}\n\n",
                    self.place(node).join("alive").display()
                ),
                "    track_script {\n        alive\n    }\n",
            ),
            false => (String::new(), ""),
        };
        format!(
            "global_defs {{\n    router_id {}\n    vrrp_version 3\n    script_user root\n}}\n\n\
             {script}vrrp_instance LAB {{\n    state BACKUP\n    nopreempt\n    interface e0\n    \
             virtual_router_id 78\n    priority {}\n    advert_int {}\n    virtual_ipaddress {{\n        \
             {shared}/24\n    }}\n{track}}}\n",
            node.name(),
            Self::priority(node),
            self.recipe.advert.as_secs_f64(),
        )
    }

    /// Returns what a genuine Sentinel reads.
    fn sentinel_conf(&self, node: Host) -> String {
        let own = self.network.address(node);
        let place = self.place(node);
        let mut text = format!(
            "port {SENTINEL_PORT}\nbind {own}\nprotected-mode no\ndir {}\n",
            place.display()
        );
        text.push_str(&format!("sentinel announce-ip {own}\n"));
        for (shard, name) in SHARDS.iter().enumerate() {
            let Some(master) = self.first_master(shard) else { continue };
            text.push_str(&format!(
                "sentinel monitor {name} {} {} 2\n\
                 sentinel down-after-milliseconds {name} {}\n\
                 sentinel failover-timeout {name} 6000\n",
                master.ip(),
                master.port(),
                self.recipe.down_after.as_millis(),
            ));
            if self.recipe.is_glued {
                let script = place.join("moved");
                text.push_str(&format!(
                    "sentinel client-reconfig-script {name} {}\n",
                    script.display()
                ));
            }
        }
        text
    }

    /// Returns what a genuine twemproxy reads. Its names keep the ring as it is when addresses are
    /// rewritten, and nobody is ejected: both are better than what is usual.
    fn nutcracker_yml(&self) -> String {
        let mut text = format!(
            "lab:\n  listen: 0.0.0.0:{REDIS_PORT}\n  hash: fnv1a_64\n  hash_tag: \"{{}}\"\n  \
             distribution: ketama\n  redis: true\n  auto_eject_hosts: false\n  timeout: 400\n  \
             server_retry_timeout: 200\n  servers:\n"
        );
        for (shard, name) in SHARDS.iter().enumerate() {
            let Some(master) = self.first_master(shard) else { continue };
            text.push_str(&format!("    - {master}:1 {name}\n"));
        }
        text
    }
}

/// What a genuine Sentinel runs when a master has moved: another address, another proxy, at once
/// when the old one has given up its ports, which is a moment after its end. It is started with:
/// name, role, state, from, port, to, port.
const MOVED: &str = r#"#!/bin/sh
place=$(dirname "$0")
sed -i "s/ $4:$5:/ $6:$7:/" "$place/nutcracker.yml"
kill "$(cat "$place/nutcracker.pid")"
while ss -Hltn | grep -q -e ':6379 ' -e ':22222 '; do sleep 0.005; done
nutcracker -c "$place/nutcracker.yml" -o "$place/nutcracker.log" < /dev/null > /dev/null 2>&1 &
echo $! > "$place/nutcracker.pid"
"#;

/// What keepalived asks once a second: whether the proxy takes connections.
const ALIVE: &str = "#!/bin/bash\n< /dev/tcp/127.0.0.1/6379\n";
