//! Making a host ready: the three names on its path, and what happens when it comes up again.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use engine::Engine;
use engine::engine::{BootUnit, UNITS};
use engine::error::{Error, Result};
use engine::paths::DEFAULT_STATE;
use engine::store;

/// Where people look for programs that are not their distribution's.
const BIN: &str = "/usr/local/bin";

/// What this program is called by.
const NAMES: [&str; 3] = ["rengine", "rcompose", "rdeploy"];

/// What systemd makes when it is what runs the machine (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// Makes the host ready, and says what was done. Done again, it says the same.
pub(crate) fn setup(engine: &Engine) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    let program = std::env::current_exe().map_err(|error| Error::failed("find this executable", error))?;
    // Another root is another engine, for which the names would be wrong.
    if engine.root().state() == Path::new(DEFAULT_STATE) {
        for name in NAMES {
            remarks.extend(name_program(&program, name)?);
        }
    }
    if Path::new(SYSTEMD).exists() {
        let units = Path::new(UNITS);
        let unit = BootUnit::new(&program, engine.root()).install(units)?;
        remarks.push(format!("{} starts containers after a reboot", unit.display()));
        let unit = recovery(engine, &program).install(units)?;
        remarks.push(format!("{} goes back from deployments that a reboot cut off", unit.display()));
    } else {
        remarks.push(format!(
            "no systemd here: run `{0} rengine system boot; {0} rdeploy agent recover` when the machine comes up",
            program.display()
        ));
    }
    Ok(remarks)
}

/// The executables that links and units of [`setup`] name.
pub(crate) fn named(engine: &Engine, program: &Path) -> io::Result<Vec<PathBuf>> {
    let links = NAMES.map(|name| std::fs::read_link(Path::new(BIN).join(name)));
    let mut all: Vec<PathBuf> = links.into_iter().flatten().collect();
    for unit in [BootUnit::new(program, engine.root()), recovery(engine, program)] {
        match std::fs::read_to_string(Path::new(UNITS).join(&unit.name)) {
            Ok(text) => {
                let starts = text.lines().filter_map(|line| line.strip_prefix("ExecStart="));
                all.extend(starts.filter_map(|line| line.split_whitespace().next()).map(PathBuf::from));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Takes back what [`setup`] made.
pub(crate) fn take_back(engine: &Engine, program: &Path) -> Result<()> {
    for name in NAMES {
        let link = Path::new(BIN).join(name);
        // One that leads to an earlier executable of ours is ours, too.
        if std::fs::read_link(&link).is_ok_and(|there| there.starts_with(engine.root().state())) {
            store::remove_file(&link)
                .map_err(|error| Error::failed(format!("remove {}", link.display()), error))?;
        }
    }
    let units = [BootUnit::new(program, engine.root()), recovery(engine, program)];
    units.iter().try_for_each(|unit| unit.remove(Path::new(UNITS)))
}

/// A link to this executable; a program of that name that is not ours stays.
fn name_program(program: &Path, name: &str) -> Result<Option<String>> {
    let link = Path::new(BIN).join(name);
    let failed = |error| Error::failed(format!("make {}", link.display()), error);
    match std::fs::read_link(&link) {
        Ok(there) if there == program => return Ok(None),
        Ok(_) => store::remove_file(&link).map_err(failed)?,
        Err(_) if link.exists() => return Ok(Some(format!("{} is there already and stays", link.display()))),
        Err(_) => {}
    }
    std::fs::create_dir_all(BIN).and_then(|()| symlink(program, &link)).map_err(failed)?;
    Ok(Some(format!("{} is this program", link.display())))
}

/// The unit that goes back from deployments once the engine's own unit has done its work.
fn recovery(engine: &Engine, program: &Path) -> BootUnit {
    let tag = engine.root().tag();
    let (program, root) = (program.display(), engine.root().state().display());
    let text = format!(
        "[Unit]\n\
         Description=Deployments on {root} that were cut off\n\
         After={tag}.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={program} rdeploy agent --root {root} recover\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    BootUnit { name: format!("{tag}-recover.service"), text }
}
