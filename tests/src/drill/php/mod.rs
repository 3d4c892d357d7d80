//! PHP: Laravel's queue workers from the real Illuminate packages, and php-fpm.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use super::{Framework, Stage};

mod env;
mod fastcgi;
mod fpm;
mod laravel;

/// Every one.
pub(super) fn all() -> Vec<Box<dyn Framework>> {
    let laravel = |name, block_for, under| Box::new(laravel::Laravel { name, block_for, under });
    use laravel::Under::{Horizon, Script, Subreaper, Supervisord};
    vec![
        laravel("laravel-poll", None, Script),
        laravel("laravel-block-5", Some(5), Script),
        laravel("laravel-block-0", Some(0), Script),
        laravel("laravel-supervisord", None, Supervisord),
        laravel("laravel-horizon", None, Horizon),
        laravel("laravel-horizon-subreaper", None, Subreaper),
        Box::new(fpm::Fpm),
    ]
}

/// Puts programs into the stage's folder.
fn files(stage: &Stage, all: &[(&str, &str)]) -> Result<()> {
    for (name, text) in all {
        let file = stage.scene.path(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
