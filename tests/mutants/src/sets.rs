//! Which files are mutated together, and whose tests judge them.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use crate::places::Mutant;
use crate::sample::Sample;

/// A set as it was asked for, or files that belong to none.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub files: Vec<String>,
    /// Otherwise the whole set.
    pub sample: Option<Sample>,
}

impl Group {
    pub fn has(&self, file: &str) -> bool {
        self.files.iter().any(|of| of == file)
    }

    /// Its mutants that are built.
    pub fn built(&self, mutants: &[Mutant]) -> Vec<usize> {
        match self.sample {
            Some(sample) => sample.built(mutants, self),
            None => (0..mutants.len())
                .filter(|place| self.has(&mutants[*place].file))
                .collect(),
        }
    }

    /// Its mutants that are judged, of those that compile.
    pub fn judged(&self, mutants: &[Mutant], compiling: &BTreeSet<usize>) -> Vec<usize> {
        match self.sample {
            Some(sample) => sample.drawn(mutants, self, compiling),
            None => {
                let built = self.built(mutants).into_iter();
                built.filter(|place| compiling.contains(place)).collect()
            }
        }
    }
}

pub struct Set {
    pub name: &'static str,
    /// Files, or folders with all files but those of tests.
    pub files: &'static [&'static str],
    /// Binaries besides the unit tests.
    pub tests: &'static [&'static str],
}

pub const SETS: [Set; 10] = [
    Set {
        name: "pure",
        files: &[
            "src/api/credentials.rs",
            "src/api/cross_site.rs",
            "src/api/wrong_passwords.rs",
            "src/deliver/classify.rs",
            "src/deliver/endpoint_policy.rs",
            "src/deliver/evidence.rs",
            "src/deliver/origin_gate.rs",
            "src/deliver/origin_gates.rs",
            "src/deliver/outcome.rs",
            "src/deliver/retry.rs",
            "src/deliver/retry_after.rs",
            "src/deliver/standing.rs",
            "src/deliver/unproven_hosts.rs",
            "src/ece",
            "src/engine/prune_breaker.rs",
            "src/message/padding.rs",
            "src/message/topic.rs",
            "src/message/ttl.rs",
            "src/message/urgency.rs",
            "src/push_service/pause.rs",
            "src/schedule",
            "src/vapid/authorization.rs",
            "src/vapid/token/mod.rs",
            "src/vapid/verify.rs",
        ],
        tests: &["pure"],
    },
    Set {
        name: "flow",
        files: &[
            "src/deliver/concurrency.rs",
            "src/deliver/flow.rs",
            "src/deliver/pace.rs",
        ],
        tests: &[],
    },
    Set {
        name: "rules",
        files: &["src/store/groups.rs", "src/store/rules"],
        tests: &["stores"],
    },
    Set {
        name: "engine",
        files: &["src/engine", "src/web_push"],
        tests: &["engine"],
    },
    Set {
        name: "stores",
        files: &[
            "src/store/memory",
            "src/store/sqlite",
            "src/store/rules",
            "src/store/heartbeat",
        ],
        tests: &["stores"],
    },
    Set {
        name: "postgres",
        files: &["src/store/postgres", "src/store/together.rs"],
        tests: &["stores"],
    },
    Set {
        name: "redis",
        files: &["src/store/redis"],
        tests: &["stores"],
    },
    Set {
        name: "deliver",
        files: &[
            "src/deliver/address.rs",
            "src/deliver/admission.rs",
            "src/deliver/calm.rs",
            "src/deliver/client.rs",
            "src/deliver/closing.rs",
            "src/deliver/connection_budget.rs",
            "src/deliver/connection_place.rs",
            "src/deliver/connector.rs",
            "src/deliver/dialled.rs",
            "src/deliver/error.rs",
            "src/deliver/future.rs",
            "src/deliver/guarded_resolver.rs",
            "src/deliver/host_check.rs",
            "src/deliver/http2_connection.rs",
            "src/deliver/http2_permit.rs",
            "src/deliver/http2_pool.rs",
            "src/deliver/http2_pooled.rs",
            "src/deliver/http2_stream.rs",
            "src/deliver/local_error.rs",
            "src/deliver/lookup_threads.rs",
            "src/deliver/open_files.rs",
            "src/deliver/resolver.rs",
            "src/deliver/sender.rs",
            "src/deliver/service.rs",
            "src/deliver/shares.rs",
            "src/deliver/socket.rs",
            "src/deliver/stop.rs",
            "src/deliver/unprocessed.rs",
        ],
        tests: &["engine"],
    },
    Set {
        name: "values",
        files: &[
            "src/broadcast",
            "src/message",
            "src/push_service",
            "src/subscription",
            "src/vapid",
        ],
        tests: &["engine"],
    },
    Set {
        name: "api",
        files: &["src/api"],
        tests: &["engine"],
    },
];

/// The sources among these files and folders.
pub fn sources(root: &Path, paths: &[&str]) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for path in paths {
        add(root, path, &mut found)?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn add(root: &Path, path: &str, found: &mut Vec<String>) -> io::Result<()> {
    let whole = root.join(path);
    if !whole.is_dir() {
        if path.ends_with(".rs") && !is_test(path) {
            found.push(path.to_owned());
        }
        return Ok(());
    }
    for entry in fs::read_dir(whole)? {
        let name = entry?.file_name();
        add(root, &format!("{path}/{}", name.to_string_lossy()), found)?;
    }
    Ok(())
}

fn is_test(path: &str) -> bool {
    const NAMES: [&str; 4] = ["tests.rs", "test_world.rs", "plans.rs", "failure_sample.rs"];
    NAMES.iter().any(|name| path.ends_with(name))
        || path.contains("/tests/")
        || path.contains("/conformance/")
        || path.contains("/simulation/")
}
