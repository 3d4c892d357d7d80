//! The built-in profiles: what a framework's masters and workers look like and how its workers stop gracefully.
//!
//! One file per framework, in the keys of a group, with the reasons beside them. `config` reads them and a test loads
//! each one; a framework whose profile has not been run against the real thing says `observe_only = true`.

/// A built-in profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// As in `profile = "…"`; the file's name without its ending.
    pub name: &'static str,
    /// The file.
    pub toml: &'static str,
    /// One line for people.
    pub summary: &'static str,
}

macro_rules! profile {
    ($name:literal, $summary:literal) => {
        Profile { name: $name, toml: include_str!(concat!($name, ".toml")), summary: $summary }
    };
}

/// The first group of a process acts on it, so frameworks come before what runs any program: first those of the first
/// kind, then those of the second, each sorted by name.
static ALL: &[Profile] = &[
    profile!("apache", "Apache httpd, the prefork MPM"),
    profile!("celery", "Celery prefork pools: the children of `celery worker`"),
    profile!("dramatiq", "Dramatiq worker processes"),
    profile!("gunicorn", "gunicorn workers that set their title, of any worker class"),
    profile!("laravel-horizon", "Laravel Horizon: supervisors and workers of `artisan horizon`"),
    profile!("laravel-queue", "Laravel `artisan queue:work` below supervisord"),
    profile!("nginx", "nginx workers"),
    profile!("php-fpm", "php-fpm pool workers"),
    profile!("postgresql", "PostgreSQL backends: never signalled"),
    profile!("puma", "puma cluster workers"),
    profile!("resque", "Resque workers below resque-pool or supervisord"),
    profile!("rq", "RQ workers of `rq worker-pool` or below supervisord"),
    profile!("sidekiq", "Sidekiq processes below sidekiqswarm or supervisord"),
    profile!("unicorn", "unicorn workers"),
    profile!("uvicorn", "workers of `uvicorn --workers`"),
    profile!("uwsgi", "uWSGI workers"),
    profile!("node-cluster", "workers of node's cluster module"),
    profile!("pm2", "node programs below pm2"),
    profile!(
        "python-multiprocessing",
        "spawned workers of Python's multiprocessing, concurrent.futures and joblib"
    ),
    profile!("supervisord", "every program below supervisord"),
];

/// Every built-in profile, in the order in which the embedded default looks at them.
pub fn all() -> &'static [Profile] {
    ALL
}

/// The profile of this name.
pub fn find(name: &str) -> Option<&'static Profile> {
    ALL.iter().find(|p| p.name == name)
}

impl Profile {
    /// Whether a group made from it observes, whatever its `mode` says, until its user writes down the masters.
    pub fn observes_only(&self) -> bool {
        self.keys().any(|line| line == "observe_only = true")
    }

    /// Whether such a group observes even then.
    pub fn never_enforces(&self) -> bool {
        self.keys().any(|line| line == "never_enforce = true")
    }

    /// The same as a `[[group]]` that needs no profile, with its comments, to be pasted into a configuration.
    pub fn as_group(&self) -> String {
        let (head, tables) = self.toml.split_once("\n[").unwrap_or((self.toml, ""));
        let mut text = String::new();
        for line in head.lines().filter(|l| l.starts_with('#') && !l.ends_with(LIFTED_BY)) {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(if self.never_enforces() {
            "# Leave it at `observe`: this framework's processes are never signalled.\n"
        } else if self.observes_only() {
            "# reaper has not been run against the real framework yet: look at the event log for long before you enforce.\n"
        } else {
            ""
        });
        text.push_str(&format!("[[group]]\nname = \"{}\"\nmode = \"observe\"\n", self.name));
        for line in format!("\n[{tables}").lines() {
            match line.strip_prefix('[') {
                Some(table) => text.push_str(&format!("[group.{table}")),
                None => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }

    /// The lines above the first table.
    fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.toml.lines().take_while(|line| !line.starts_with('['))
    }
}

/// How the line above `observe_only` ends: it is about the file and means nothing in a group.
const LIFTED_BY: &str = "take this line away when its drill has passed.";

#[cfg(test)]
mod tests;
