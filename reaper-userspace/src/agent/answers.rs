//! What the loop answers to whoever asks on the status socket, and to Prometheus: what it knows at that moment, copied as
//! cheaply as possible.

use super::protocol::{Answer, MasterView, OVERVIEW_SHOWN, Overview, Request, Status, no_such_group};
use super::{Agent, version};
use crate::clock;
use crate::core::Core;
use crate::metrics::{self, Facts};

impl Agent {
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let core: &Core = &self.core;
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Tree(which) => match core.rows(which) {
                Some(rows) => Answer::Tree(rows),
                None => {
                    let groups: Vec<String> = core.status().into_iter().map(|g| g.name).collect();
                    Answer::Refused(no_such_group(which.group.as_deref().unwrap_or_default(), &groups))
                }
            },
            Request::Orphans => Answer::Orphans(core.orphan_views(clock::now(), usize::MAX)),
            Request::Explain { pid } => Answer::Explanation(core.explain(clock::now(), *pid).map(Box::new)),
            Request::Overview => Answer::Overview(Box::new(Overview {
                status: self.status(),
                master_list: masters(core),
                orphan_list: core.orphan_views(clock::now(), OVERVIEW_SHOWN),
            })),
        }
    }

    fn status(&self) -> Status {
        Status {
            version: version(),
            pid: std::process::id(),
            config: self.about.config.clone(),
            processes: self.core.tree().live_count(),
            groups: self.core.status(),
            counters: self.core.counters(),
            boot_ns: clock::now(),
        }
    }

    pub(super) fn answer_metrics(&mut self, ask: metrics::Ask) {
        let Some((_, metrics)) = &mut self.metrics else { return };
        let programs = self.probes.stats().unwrap_or_else(|e| {
            tracing::warn!("what the kernel programs cost is not known: {e}");
            Vec::new()
        });
        let facts = Facts {
            core: &self.core,
            events: self.core.events(),
            programs: &programs,
            log_lost: self.log.lost(),
            log_failures: self.log.failures(),
            log_failing: self.log.failing().is_some(),
        };
        let page = metrics.page(clock::now(), ask.format, &facts);
        ask.answer(page);
    }
}

fn masters(core: &Core) -> Vec<MasterView> {
    let masters = core.masters().take(OVERVIEW_SHOWN);
    masters.map(|(group, proc)| MasterView { group: group.to_owned(), proc }).collect()
}
