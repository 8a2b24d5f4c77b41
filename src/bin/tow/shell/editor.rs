//! The shell with a person: a prompt, a line editor, a history, completion.

use rustyline::{
    Config, Editor,
    config::{BellStyle, CompletionType},
    error::ReadlineError,
    history::FileHistory,
};

use super::{
    Shell,
    commands::shown,
    history::{self, HISTORY_LINES_MAX},
    names::Names,
    signals::Signals,
};
use crate::{
    exit::{Exit, Failure},
    show::{self, printable},
};

/// Runs commands until the person leaves. A command that fails ends nothing.
pub(super) fn run(shell: &mut Shell<'_>, signals: &Signals) -> Result<Exit, Failure> {
    let local = |error: ReadlineError| Failure::Local(format!("the terminal: {error}"));
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(local)?
        .completion_type(CompletionType::List)
        .bell_style(BellStyle::None)
        .build();
    let mut editor: Editor<Names, FileHistory> = Editor::with_config(config).map_err(local)?;
    editor.set_helper(Some(Names::new(shell)));
    let history = history::file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    greet(shell);
    while !shell.ended && signals.wait() {
        if let Some(names) = editor.helper_mut() {
            names.refresh(shell);
        }
        let line = match editor.readline(&prompt(shell)) {
            Ok(line) => line,
            // The line is gone, and nothing else.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(local(error)),
        };
        signals.begin();
        if let Some(file) = history.as_ref().filter(|_| history::may_be_kept(&line)) {
            // Also where it can't be kept, this shell remembers it.
            let _ = editor.add_history_entry(&line);
            let _ = editor.append_history(file);
        }
        run_lines(shell, &line);
    }
    // It may also be that SIGTERM came while a command ran.
    Ok(if signals.wait() { Exit::Done } else { Exit::Interrupted })
}

/// Several lines can have been pasted: the first one that fails is the last.
fn run_lines(shell: &mut Shell<'_>, lines: &str) {
    for line in lines.lines() {
        match shell.execute(line.as_bytes(), false) {
            Ok(Exit::Done) if !shell.ended => {}
            Ok(_) => break,
            Err(error) => {
                eprintln!("tow: {error}");
                break;
            }
        }
    }
}

/// What a person sees first: what the server has to say to whoever comes, then where to begin.
fn greet(shell: &Shell<'_>) {
    if !shell.context.quiet {
        show::banner(&shell.context.client(&shell.base));
        let server = printable(shell.context.client(&shell.base).address().as_bytes());
        eprintln!("{server}: help says what there is, Ctrl-D leaves");
    }
}

fn prompt(shell: &Shell<'_>) -> String {
    let user = shell.base.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
    format!("tow {user}{}:{}> ", printable(shell.base.host.as_bytes()), shown(&shell.here()))
}
