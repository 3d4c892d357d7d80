//! One process explained: who it is, whose it is, what was seen of it, what would happen, and which rule says so.

use serde::{Deserialize, Serialize};

use super::words::{count, span};
use super::{Ancestor, Next, Place, Role, next};
use crate::core::Core;
use crate::core::ids::Ns;
use crate::core::membership::GroupId;
use crate::core::records::{Evidence, ProcView, SparedBecause, Verdict};
use crate::core::rules::{Group, Matcher, Mode};
use crate::core::tree::NodeId;

/// So many of those above a process are named where the nearest will do.
const NEAREST: usize = 4;

/// Everything that is known of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who.
    pub proc: ProcView,
    /// False if it is dead and only remembered.
    pub alive: bool,
    /// How long ago it was born, microseconds.
    pub age_us: u64,
    /// Parents at birth, nearest first.
    pub lineage: Vec<Ancestor>,
    /// The kernel's parents now, nearest first.
    pub ancestry: Vec<Ancestor>,
    /// Its roles.
    pub roles: Vec<Place>,
    /// What it is in each group, and what follows.
    pub groups: Vec<InGroup>,
    /// The last look at it; only orphans are looked at.
    pub look: Option<Look>,
    /// What comes next, if it is an orphan.
    pub next: Option<Next>,
    /// What happens to it, in sentences.
    pub says: Vec<String>,
}

/// What a process is in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InGroup {
    /// Its name.
    pub group: String,
    /// Whether it signals.
    pub mode: Mode,
    /// What the process is there.
    pub role: Role,
    /// That, in sentences.
    pub says: Vec<String>,
}

/// One look at a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// How long ago, microseconds.
    pub ago_us: u64,
    /// What was seen, and what follows.
    pub evidence: Evidence,
}

impl Core {
    /// Explains the process that has this pid: the live one, else a remembered dead one. `None` if there is neither.
    pub fn explain(&self, now: Ns, pid: u32) -> Option<Explanation> {
        let id = self.tree.find_pid(pid).or_else(|| self.tree.find_dead_pid(pid))?;
        let node = &self.tree[id];
        let orphan = self.orphans.get(&node.key());
        let roles = self.roles(id);
        let look = orphan.and_then(|o| o.last_look.clone());
        Some(Explanation {
            proc: self.tree.view(id),
            alive: node.is_live(),
            age_us: now.saturating_sub(node.key().start_ns) / 1_000,
            lineage: self.tree.lineage(id).take(super::LINEAGE_SHOWN).map(|up| self.ancestor(up)).collect(),
            ancestry: self
                .tree
                .ancestors(id)
                .take(super::LINEAGE_SHOWN)
                .map(|up| self.ancestor(up))
                .collect(),
            roles: self.places(id),
            groups: roles.iter().map(|&(g, role)| self.in_group(now, id, g, role)).collect(),
            look: look.map(|(at, evidence)| Look { ago_us: now.saturating_sub(at) / 1_000, evidence }),
            next: orphan.map(|o| self.next(now, o)),
            says: self.says(id, roles.is_empty()),
        })
    }

    fn in_group(&self, now: Ns, id: NodeId, g: GroupId, role: Role) -> InGroup {
        let group = &self.rules.groups[g];
        let says = if self.tree[id].is_live() {
            self.sentences(now, id, g, role)
        } else {
            vec![format!("It is dead. When it died it was {} of the group.", with_article(role))]
        };
        InGroup { group: group.name.clone(), mode: group.mode, role, says }
    }

    fn sentences(&self, now: Ns, id: NodeId, g: GroupId, role: Role) -> Vec<String> {
        let group = &self.rules.groups[g];
        match role {
            Role::Master | Role::Heir => {
                let workers = self.workers_of(id, g);
                vec![
                    match role {
                        Role::Heir => "It is a master: it has succeeded one that exited.".to_owned(),
                        _ => "It is a master: it matches the group's master patterns and has no master above it.".to_owned(),
                    },
                    "Masters are never signalled.".to_owned(),
                    format!("If it dies, {} without a master: {}.", left_behind(workers), next::policy(group, "each")),
                ]
            }
            Role::Worker => vec![
                match self.members.live_master_above(&self.tree, id, g) {
                    Some(master) => format!("It is a worker of master {}, which lives.", self.name(master)),
                    None => "It is a worker.".to_owned(),
                },
                format!(
                    "Nothing happens to it while a master lives above it. If it loses that, {}.",
                    next::policy(group, "it")
                ),
            ],
            Role::Member => vec![
                "It is below a master of the group and does not match the group's worker patterns.".to_owned(),
                "It is never signalled for this group.".to_owned(),
            ],
            Role::Undecided => vec![
                "It has just lost its master. Whether it is an orphan, or has left or succeeds its master as daemons do, is \
                 decided within about a second."
                    .to_owned(),
            ],
            Role::Detached => {
                let (says, _) = next::reason(SparedBecause::Detached, group);
                vec![format!("It descends from a master. What happens: {says}.")]
            }
            Role::JobChild if !self.is_orphan_of(self.tree[id].key(), g) => vec![
                "It counts as a job, or as the work of an orphan above it.".to_owned(),
                "Jobs are watched and never signalled.".to_owned(),
            ],
            Role::Draining if !self.is_orphan_of(self.tree[id].key(), g) => {
                let by = match self.asked_to_stop(self.tree[id].key(), g) {
                    Some((signal, sender)) => format!("Process {sender} has sent it {signal}"),
                    None => "Somebody has asked it to stop".to_owned(),
                };
                vec![
                    "It is a worker with a live master.".to_owned(),
                    format!("{by}: it is left to finish, also if it loses its master."),
                ]
            }
            Role::Orphan | Role::Stray | Role::Draining | Role::JobChild => self.of_orphan(now, id, g),
        }
    }

    fn of_orphan(&self, now: Ns, id: NodeId, g: GroupId) -> Vec<String> {
        let Some(orphan) = self.orphans.get(&self.tree[id].key()) else { return Vec::new() };
        let age = span(now.saturating_sub(orphan.since));
        let mut says = vec![match self.members.lineage_master(&self.tree, id, g) {
            Some(master) => format!(
                "It has been an orphan for {age}: it descends from master {}, and no live master of the group is above it.",
                self.name(master)
            ),
            None => format!(
                "It is a stray, known for {age}: it matches the group's worker patterns and no master is above it. It \
                 was there before the agent, so nobody saw whose it was."
            ),
        }];
        if orphan.group != g {
            says.push(format!("Group {} acts on it, not this one.", self.group_name(orphan.group)));
        } else if let Some((_, evidence)) = &orphan.last_look {
            says.extend(about_queue(evidence, &self.rules.groups[g]));
        }
        says
    }

    /// What does not depend on a group.
    fn says(&self, id: NodeId, no_role: bool) -> Vec<String> {
        let node = &self.tree[id];
        let mut says = Vec::new();
        if !node.is_live() {
            let born = self.tree.live().filter(|&l| self.tree.lineage(l).any(|up| up == id)).count();
            says.push(format!(
                "It is dead, and remembered because {} from it.",
                if born == 1 {
                    "1 live process descends".to_owned()
                } else {
                    format!("{born} live processes descend")
                }
            ));
            return says;
        }
        if no_role && node.has_left() {
            let left = "It looks like a worker, and it leads a session of its own or left its master on purpose, as daemons \
                 do: it is left alone.";
            says.push(left.to_owned());
        } else if no_role {
            says.push("It belongs to no group: nothing is done about it.".to_owned());
            says.extend(self.looks_like(id));
        }
        if self.is_protected(id) {
            says.push("It is protected: it is never signalled, whatever it is.".to_owned());
        }
        says
    }

    /// Why it is nobody's worker, sentence by sentence, if it looks like one.
    fn looks_like(&self, id: NodeId) -> Vec<String> {
        let who = self.known(id);
        let fits = |g: &Group| g.worker.as_ref().is_some_and(|worker| worker.might_match(&who));
        let groups: Vec<&Group> = self.rules.groups.iter().filter(|g| fits(g)).collect();
        let (of, its) = match &*groups {
            [] => return Vec::new(),
            [one] => (format!("group {}", one.name), "that group"),
            many => (format!("groups {}", listed(many.iter().map(|g| g.name.clone()))), "those groups"),
        };
        // What /proc alone tells is not asked for.
        let also = if groups.iter().any(|g| g.worker.as_ref().is_some_and(Matcher::needs_proc)) {
            ", as far as its user, its name and its arguments tell"
        } else {
            ""
        };
        let mut ancestors = self.tree.ancestors(id);
        let mut above: Vec<String> = ancestors.by_ref().take(NEAREST).map(|up| self.name(up)).collect();
        above.extend(ancestors.next().map(|_| "others".to_owned()));
        let above = match &*above {
            [] => "above it is nobody".to_owned(),
            [one] => format!("above it is {one}"),
            _ => format!("above it are {}", listed(above.into_iter())),
        };
        vec![
            format!(
                "It fits the worker patterns of {of}{also}, but none of its ancestors is a master of {its}, so it is not \
                 watched: {above}."
            ),
            format!(
                "It would be a worker if one of them matched the master patterns (group.master) of {its}."
            ),
        ]
    }

    /// How many live processes have this master as the nearest in their lineage, and are workers.
    fn workers_of(&self, master: NodeId, g: GroupId) -> usize {
        let worker = self.rules.groups[g].worker.as_ref();
        let is_worker = |&id: &NodeId| {
            self.members.lineage_master(&self.tree, id, g) == Some(master)
                && worker.is_none_or(|w| w.might_match(&self.known(id)))
        };
        self.tree.descendants(master).iter().filter(|id| is_worker(id)).count()
    }

    fn name(&self, id: NodeId) -> String {
        let node = &self.tree[id];
        let dead = if node.is_live() { "" } else { ", dead" };
        format!("{} ({}{dead})", node.key().tgid, node.comm())
    }
}

/// What a busy one waits for that may be a queue of which its group does not know.
fn about_queue(evidence: &Evidence, group: &Group) -> Option<String> {
    if evidence.verdict == Verdict::Idle || group.idle.queue.is_empty() {
        return None;
    }
    let mut waits = evidence.threads.iter().flat_map(|thread| &thread.waits_on);
    // What is told as a queue is one that the group names.
    let peer = waits.find(|on| on.what == "socket").and_then(|on| on.peer.as_ref())?;
    let known: Vec<String> = group.idle.queue.iter().map(ToString::to_string).collect();
    let whole: Vec<&String> = known.iter().chain([peer]).collect();
    Some(format!(
        "The group's queue is {}. If its jobs come from {peer}, name that in [group.idle], too: queue = {whole:?}.",
        listed(known.iter().cloned())
    ))
}

/// `a`, `a and b`, `a, b and c`
fn listed(mut all: impl DoubleEndedIterator<Item = String>) -> String {
    let last = all.next_back().unwrap_or_default();
    match all.collect::<Vec<_>>().join(", ") {
        before if before.is_empty() => last,
        before => format!("{before} and {last}"),
    }
}

fn left_behind(workers: usize) -> String {
    match workers {
        0 => "no worker is left".to_owned(),
        1 => "1 worker is left".to_owned(),
        n => format!("{} are left", count(n, "worker")),
    }
}

fn with_article(role: Role) -> String {
    match role {
        Role::Heir | Role::Orphan => format!("an {role}"),
        Role::Undecided | Role::Detached => role.to_string(),
        _ => format!("a {role}"),
    }
}
