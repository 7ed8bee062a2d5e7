//! `demeanor completions` and `demeanor man`: what shells and `man` read, made from the same definitions as the help.

use super::{CliError, Outcome, command, write};
use clap::Command;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Print the completions of a shell
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor completions bash > ~/.local/share/bash-completion/completions/demeanor"
)]
pub struct CompletionsArgs {
    /// Shell that reads them
    pub shell: Shell,
}

/// Print the manual page, or write those of all verbs into a folder
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor man | man -l -\n  demeanor man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Folder for demeanor.1, demeanor-serve.1 and the rest; it is made if need be
    #[arg(long)]
    pub out: Option<PathBuf>,
}

pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "demeanor", &mut text);
    print(&text)
}

pub fn man(args: &ManArgs) -> Outcome {
    let mut root = command();
    root.build();
    let Some(folder) = &args.out else { return print(&page(&root)?) };
    std::fs::create_dir_all(folder).map_err(|error| {
        CliError::failed(format!("cannot make the folder `{}`: {error}", folder.display()))
    })?;
    for (name, page) in pages(&root)? {
        write(&folder.join(name), page)?;
    }
    Ok(())
}

/// File names and pages of a command and all below it, clap's own `help` left out.
fn pages(command: &Command) -> Result<Vec<(String, Vec<u8>)>, CliError> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut all = vec![(format!("{name}.1"), page(command)?)];
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        all.extend(pages(verb)?);
    }
    Ok(all)
}

fn page(command: &Command) -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    let written = clap_mangen::Man::new(command.clone()).render(&mut text);
    written.map_err(|error| CliError::failed(format!("the manual page cannot be made: {error}")))?;
    Ok(text)
}

/// A reader that stops early, as `head` does, is no failure.
fn print(text: &[u8]) -> Outcome {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let mut root = command();
        root.build();
        let pages = pages(&root).expect("pages");
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["demeanor.1", "demeanor-serve.1", "demeanor-persona-import.1"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        let (_, serve) = pages.iter().find(|(name, _)| name == "demeanor-serve.1").expect("there");
        let text = String::from_utf8_lossy(serve);
        assert!(text.contains("DEMEANOR_PORT") && text.contains(".TH demeanor-serve 1"), "{text}");
    }
}
