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

/// Sorted by name.
static ALL: &[Profile] = &[
    profile!("celery", "Celery prefork pools: the children of `celery worker`"),
    profile!("gunicorn", "gunicorn workers that set their title, of any worker class"),
    profile!("laravel-horizon", "Laravel Horizon: supervisors and workers of `artisan horizon`"),
    profile!("laravel-queue", "Laravel `artisan queue:work` below supervisord"),
    profile!("php-fpm", "php-fpm pool workers"),
];

/// Every built-in profile, sorted by name.
pub fn all() -> &'static [Profile] {
    ALL
}

/// The profile of this name.
pub fn find(name: &str) -> Option<&'static Profile> {
    ALL.iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests;
