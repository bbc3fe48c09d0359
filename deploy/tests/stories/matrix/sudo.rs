//! How a command becomes root's.

use deploy::ssh::{Secret, SshError, Sudo};

use super::world::World;
use super::{Case, Expected};
use crate::server::PASSWORD;

pub(super) fn cases(world: &World) -> Vec<Case> {
    let password = |text: &str| Sudo::Password(Secret::new(text));
    vec![
        world.sudo("root", "root", Sudo::Never, Expected::Root),
        world.sudo("sudo without password", "ops", Sudo::Auto, Expected::Root),
        world.sudo("sudo with a password not asked for", "ops", password(PASSWORD), Expected::Root),
        world.sudo("sudo with password", "me", password(PASSWORD), Expected::Root),
        world.sudo(
            "sudo with the wrong password",
            "me",
            password("no"),
            root_fails!(SshError::SudoPasswordWrong { .. }),
        ),
        world.sudo(
            "sudo that wants a password",
            "me",
            Sudo::Auto,
            root_fails!(SshError::SudoWantsPassword { user, .. } if user == "me"),
        ),
        world.sudo("no sudoer", "bob", password(PASSWORD), root_fails!(SshError::NotInSudoers { .. })),
        world.sudo("no sudo wanted", "ops", Sudo::Never, root_fails!(SshError::NotRoot { .. })),
        world.sudo("requiretty", "teletype", Sudo::Auto, root_fails!(SshError::SudoNeedsTerminal { .. })),
        Case {
            address: world.far.as_user("me"),
            access: world.far.access(),
            ..world.sudo("no sudo there", "me", Sudo::Auto, root_fails!(SshError::SudoMissing { .. }))
        },
    ]
}
