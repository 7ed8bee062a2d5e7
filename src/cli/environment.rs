//! Every flag is also a variable `DEMEANOR_<FLAG>`: one rule over clap's own definitions instead of a name at each flag.

use clap::builder::FalseyValueParser;
use clap::{Arg, ArgAction, Command};

/// The command with the rule applied to it and all below it. What a flag's own definition says of the environment stays.
pub fn with_environment(command: Command) -> Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.mut_args(with_variable);
    verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, with_environment))
}

fn with_variable(argument: Arg) -> Arg {
    let Some(flag) = argument.get_long() else { return argument };
    let argument = match argument.get_env() {
        Some(_) => argument,
        // What a variable holds is nobody's business who asks for help.
        None => {
            let name = variable(flag);
            argument.env(name).hide_env_values(true)
        }
    };
    match argument.get_action() {
        // `1`, `yes` and `true` set a switch; `0`, `no`, `false` and nothing leave it.
        ArgAction::SetTrue => argument.value_parser(FalseyValueParser::new()),
        _ => argument,
    }
}

/// `DEMEANOR_STEP_BUDGET_MS` for `step-budget-ms`.
fn variable(flag: &str) -> String {
    format!("DEMEANOR_{}", flag.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every flag of a command and of all below it, with its variable.
    fn flags(command: &Command) -> Vec<(String, Option<String>)> {
        let env = |argument: &Arg| argument.get_env().map(|name| name.to_string_lossy().into_owned());
        let own = command.get_arguments().filter_map(|argument| {
            let flag = argument.get_long().filter(|flag| !["help", "version"].contains(flag))?;
            Some((flag.to_owned(), env(argument)))
        });
        own.chain(command.get_subcommands().flat_map(flags)).collect()
    }

    #[test]
    fn every_flag_has_the_variable_of_its_name() {
        let mut command = crate::cli::command();
        command.build();
        let flags = flags(&command);
        assert!(flags.len() > 100, "{}", flags.len());
        for (flag, env) in flags {
            assert_eq!(env, Some(variable(&flag)), "--{flag}");
        }
    }

    #[test]
    fn names_of_variables() {
        assert_eq!(variable("step-budget-ms"), "DEMEANOR_STEP_BUDGET_MS");
    }
}
