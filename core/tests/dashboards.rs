//! The alerts and the dashboard that are shipped speak of metrics that exist, with labels that they
//! have; the README lists them all.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ringkeeper_core::admin::ROUTES;
use ringkeeper_core::admin::metrics::{FAMILIES, Family, Kind};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Finds the family that a name in an expression is of.
fn family_of(name: &str) -> Option<&'static Family> {
    let is_of = |family: &&Family| match name.strip_prefix(family.name) {
        Some("") => family.kind != Kind::Histogram,
        Some("_bucket" | "_sum" | "_count") => family.kind == Kind::Histogram,
        Some(_) | None => false,
    };
    FAMILIES.iter().find(is_of)
}

/// Returns the names of our metrics in a text, each with what is in braces behind it.
fn names(text: &str) -> Vec<(&str, &str)> {
    let starts = text.match_indices("ringkeeper_").map(|(at, _)| at);
    let found = starts.map(|at| {
        let rest = &text[at..];
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let braces = behind.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        (name, braces.map_or("", |(inner, _)| inner))
    });
    found.collect()
}

/// Returns the labels that a selector asks for.
fn labels(selector: &str) -> Vec<&str> {
    let parts = selector.split(", ").flat_map(|part| part.split(','));
    let names = parts.map(|part| part.split(['=', '!']).next().unwrap_or_default().trim());
    names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase()) && !name.is_empty()).collect()
}

fn check(place: &str, text: &str) -> BTreeSet<&'static str> {
    let mut used = BTreeSet::new();
    for (name, selector) in names(text) {
        let family = family_of(name).unwrap_or_else(|| panic!("{place} has {name}"));
        used.insert(family.name);
        let known: Vec<&str> = family.labels.split(", ").collect();
        for label in labels(&selector.replace("\\\"", "\"")) {
            let is_known = known.contains(&label) || label == "instance";
            assert!(is_known, "{place}: {name} has no label {label}");
        }
    }
    used
}

#[test]
fn alerts_speak_of_metrics_that_exist() {
    let used = check("conf/alerts.yml", &read("conf/alerts.yml"));
    assert!(used.len() > 8, "{used:?}");
}

#[test]
fn the_dashboard_speaks_of_metrics_that_exist() {
    let text = read("conf/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut used = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("an expression");
            let title = panel["title"].as_str().expect("a title");
            let found = check(title, expression);
            assert!(!found.is_empty(), "{title} shows nothing of ours");
            used.extend(found);
        }
    }
    assert!(used.len() > 15, "{used:?}");
}

#[test]
fn the_documentation_lists_every_metric_and_page() {
    let text = read("METRICS.md");
    for family in FAMILIES {
        let labels = if family.labels.is_empty() { "–" } else { family.labels };
        let line = format!(
            "| `{}` | {} | {labels} | {} |\n",
            family.name,
            family.kind.name(),
            family.help.trim_end_matches('.')
        );
        assert!(text.contains(&line), "METRICS.md lacks this line:\n{line}");
    }
    for route in ROUTES {
        let method = if route.is_change { "POST" } else { "GET" };
        let line = format!("| {method} | `{}` | {} |\n", route.path, route.about);
        assert!(text.contains(&line), "METRICS.md lacks this line:\n{line}");
    }
    let is_metric = |line: &&str| {
        let names = ["| `ringkeeper_", "| `redis_", "| `keepalived_"];
        names.iter().any(|name| line.starts_with(name))
    };
    let listed = text.lines().filter(is_metric).count();
    assert_eq!(listed, FAMILIES.len(), "METRICS.md lists metrics that do not exist");
}

#[test]
fn the_check_of_names_finds_what_does_not_exist() {
    assert!(family_of("ringkeeper_pool_clients").is_some());
    assert!(family_of("ringkeeper_pool_clients_bucket").is_none());
    assert!(family_of("ringkeeper_request_duration_seconds").is_none());
    assert!(family_of("ringkeeper_request_duration_seconds_sum").is_some());
    assert_eq!(labels("pool=~\"$pool\", kind!~\"a|b\""), ["pool", "kind"]);
}
