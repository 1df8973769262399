//! Which keywords exist where. Unknown ones are told and skipped with their block; those that
//! keepalived knows and that do nothing here are told by name.

/// Keywords outside blocks that are read.
pub(super) const TOP: &[&str] = &[
    "global_defs",
    "vrrp_instance",
    "vrrp_script",
    "vrrp_sync_group",
    "vrrp_track_process",
    "vrrp_track_file",
    "track_file",
    "virtual_server",
    "virtual_server_group",
    "include",
    "includer",
    "includem",
    "includew",
    "includeb",
    "includea",
];

/// Keywords outside blocks that keepalived knows and that do nothing here.
pub(super) const TOP_UNUSED: &[&str] = &[
    "static_ipaddress",
    "static_routes",
    "static_rules",
    "track_group",
    "garp_group",
    "interface_up_down_delays",
    "linkbeat_interfaces",
    "bfd_instance",
    "SSL",
    "net_namespace",
    "net_namespace_ipvs",
    "namespace_with_ipsets",
    "instance",
    "use_pid_dir",
    "linkbeat_use_polling",
    "daemon_mode",
];

/// Keywords of `vrrp_instance` that are read.
pub(super) const INSTANCE: &[&str] = &[
    "state",
    "interface",
    "virtual_router_id",
    "priority",
    "advert_int",
    "version",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "virtual_routes",
    "authentication",
    "unicast_src_ip",
    "unicast_peer",
    "unicast_ttl",
    "check_unicast_src",
    "mcast_src_ip",
    "mcast_dst_ip",
    "track_src_ip",
    "nopreempt",
    "preempt",
    "preempt_delay",
    "track_script",
    "track_interface",
    "track_file",
    "track_process",
    "dont_track_primary",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify_deleted",
    "notify_master_rx_lower_pri",
    "notify",
    "garp_master_delay",
    "garp_master_repeat",
    "garp_master_refresh",
    "garp_master_refresh_repeat",
    "garp_lower_prio_delay",
    "garp_lower_prio_repeat",
    "garp_interval",
    "gna_interval",
    "higher_prio_send_advert",
    "lower_prio_no_advert",
    "down_timer_adverts",
    "skip_check_adv_addr",
    "strict_mode",
    "accept",
    "use_vmac",
    "vmac_xmit_base",
    "old_unicast_checksum",
    "v3_checksum_as_v2",
];

/// Keywords of `vrrp_instance` that keepalived knows and that do nothing here.
pub(super) const INSTANCE_UNUSED: &[&str] = &[
    "unicast_fault_no_peer",
    "track_bfd",
    "garp_extra_if",
    "use_vmac_addr",
    "use_ipvlan",
    "virtual_rules",
    "no_accept",
    "promote_secondaries",
    "smtp_alert",
    "native_ipv6",
    "linkbeat_use_polling",
    "kernel_rx_buf_size",
    "debug",
    "lvs_sync_daemon_interface",
    "notify_priority_changes",
    "no_virtual_ipaddress",
    "owner_ignore_adverts",
    "timer_expired_backup",
];

/// Keywords of `vrrp_script`.
pub(super) const SCRIPT: &[&str] =
    &["script", "interval", "timeout", "weight", "rise", "fall", "user", "init_fail"];

/// Keywords of `vrrp_track_process`.
pub(super) const PROCESS: &[&str] = &[
    "process",
    "weight",
    "quorum",
    "quorum_max",
    "delay",
    "terminate_delay",
    "fork_delay",
    "full_command",
    "param_match",
];

/// Keywords of `vrrp_track_file`.
pub(super) const FILE: &[&str] = &["file", "weight", "init_file"];

/// Keywords of `vrrp_sync_group`.
pub(super) const GROUP: &[&str] = &[
    "group",
    "track_script",
    "track_interface",
    "track_file",
    "track_process",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify",
    "sync_group_tracking_weight",
    "global_tracking",
];

/// Keywords of `global_defs` that are read on their own.
const GLOBAL: &[&str] = &[
    "router_id",
    "vrrp_version",
    "script_user",
    "enable_script_security",
    "vrrp_startup_delay",
    "vrrp_delay_after_boot",
    "notify_fifo",
    "notify_fifo_script",
    "vrrp_notify_fifo",
    "vrrp_notify_fifo_script",
    "vrrp_garp_master_delay",
    "vrrp_garp_master_repeat",
    "vrrp_garp_master_refresh",
    "vrrp_garp_master_refresh_repeat",
    "vrrp_garp_lower_prio_delay",
    "vrrp_garp_lower_prio_repeat",
    "vrrp_garp_interval",
    "vrrp_gna_interval",
    "vrrp_min_garp",
    "startup_script",
    "startup_script_timeout",
    "shutdown_script",
    "shutdown_script_timeout",
];

/// Keywords of `global_defs` that are defaults of routers.
pub(super) const GLOBAL_DEFAULTS: &[&str] = &[
    "vrrp_strict",
    "vrrp_skip_check_adv_addr",
    "vrrp_check_unicast_src",
    "vrrp_lower_prio_no_advert",
    "vrrp_higher_prio_send_advert",
    "vrrp_down_timer_adverts",
    "vrrp_mcast_group4",
    "vrrp_mcast_group6",
    "default_interface",
];

/// Keywords of `global_defs` about the scheduler.
pub(super) const GLOBAL_SCHEDULING: &[&str] =
    &["vrrp_rt_priority", "vrrp_priority", "vrrp_rlimit_rttime", "vrrp_no_swap"];

/// Keywords of `global_defs` that ask for nothing that a router does: mail is for whoever sends
/// it.
pub(super) const GLOBAL_FOR_OTHERS: &[&str] = &[
    "notification_email",
    "notification_email_from",
    "smtp_server",
    "smtp_connect_timeout",
    "smtp_helo_name",
];

/// Keywords of `global_defs` that keepalived knows and that do nothing here.
pub(super) const GLOBAL_UNUSED: &[&str] = &[
    "dynamic_interfaces",
    "vrrp_cpu_affinity",
    "max_auto_priority",
    "min_auto_priority_delay",
    "lvs_id",
    "lvs_flush",
    "lvs_flush_onstop",
    "lvs_timeouts",
    "lvs_sync_daemon",
    "lvs_notify_fifo",
    "lvs_notify_fifo_script",
    "nftables",
    "nftables_priority",
    "nftables_ifindex",
    "nftables_counters",
    "vrrp_iptables",
    "vrrp_ipsets",
    "enable_snmp_vrrp",
    "enable_snmp_keepalived",
    "enable_snmp_checker",
    "enable_snmp_rfc",
    "enable_traps",
    "snmp_socket",
    "enable_dbus",
    "dbus_service_name",
    "process_names",
    "process_name",
    "vrrp_process_name",
    "checker_process_name",
    "bfd_process_name",
    "use_pid_dir",
    "reload_check_config",
    "reload_file",
    "reload_time_file",
    "reload_repeat",
    "include_check",
    "umask",
    "smtp_alert",
    "smtp_alert_vrrp",
    "smtp_alert_checker",
    "no_email_faults",
    "checker_priority",
    "checker_rt_priority",
    "checker_rlimit_rttime",
    "checker_no_swap",
    "checker_cpu_affinity",
    "bfd_priority",
    "bfd_rt_priority",
    "bfd_rlimit_rttime",
    "bfd_no_swap",
    "bfd_cpu_affinity",
    "fifo_write_vrrp_states_on_reload",
    "vrrp_notify_priority_changes",
    "vrrp_owner_ignore_adverts",
    "rs_init_notifies",
    "no_checker_emails",
    "vrrp_rx_bufs_policy",
    "vrrp_rx_bufs_multiplier",
    "vrrp_netlink_cmd_rcv_bufs",
    "vrrp_netlink_cmd_rcv_bufs_force",
    "vrrp_netlink_monitor_rcv_bufs",
    "vrrp_netlink_monitor_rcv_bufs_force",
    "lvs_netlink_cmd_rcv_bufs",
    "lvs_netlink_monitor_rcv_bufs",
    "allow_if_changes",
    "disable_local_igmp",
    "vmac_prefix",
    "vmac_addr_prefix",
    "json_version",
    "state_dump_file",
    "tmp_config_directory",
    "config_save_dir",
    "log_unknown_vrids",
    "random_seed",
];

/// Returns all keywords of `global_defs` that are read.
pub(super) fn global() -> impl Iterator<Item = &'static str> {
    let parts = [GLOBAL, GLOBAL_DEFAULTS, GLOBAL_SCHEDULING, GLOBAL_FOR_OTHERS];
    parts.into_iter().flatten().copied()
}
