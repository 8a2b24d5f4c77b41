//! Running an action: its output as it comes, then how it ended.

use super::{Client, ClientError, line::Line};
use crate::wire::{Code, Command, OUTPUT_HEADER_BYTES, Output, OutputHeader, Reply};

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Status(u8),
    /// By a signal of this number, which was not the server's.
    Signal(u8),
    /// The server ended it, for this reason.
    Ended(String),
}

impl Client {
    /// Runs an action; `output` gets every piece of its output as it comes. An action is never
    /// run twice: a line that breaks ends it, and is not mended.
    ///
    /// # Errors
    /// [`ClientError`]; what `output` says ends the action as well.
    pub fn run(
        &self,
        name: &str,
        arguments: &[Vec<u8>],
        mut output: impl FnMut(&Output<'_>) -> std::io::Result<()>,
    ) -> Result<Ended, ClientError> {
        let mut line = self.line()?;
        let command = Command::Run { name: name.to_owned(), arguments: arguments.to_vec() };
        line.send_command(&command)?;
        let reply = line.read_reply()?;
        if reply.code != Code::Running {
            return Err(ClientError::from_reply(reply));
        }
        let ended = loop {
            let (header, payload) = frame(&mut line)?;
            let read = Output::read(header.kind, &payload)?;
            match read {
                Output::Exit(reply) => break ended(&reply)?,
                read => output(&read).map_err(|error| ClientError::Output {
                    what: "writing the output of the action",
                    error,
                })?,
            }
        };
        self.keep(line);
        Ok(ended)
    }
}

/// One frame. An empty one is a sign of life.
fn frame(line: &mut Line) -> Result<(OutputHeader, Vec<u8>), ClientError> {
    let mut header = [0; OUTPUT_HEADER_BYTES];
    line.receive_exact(&mut header)?;
    let header = OutputHeader::parse(&header)
        .ok_or_else(|| ClientError::Broken("the output makes no sense".to_owned()))?;
    let mut payload = vec![0; header.length as usize];
    line.receive_exact(&mut payload)?;
    Ok((header, payload))
}

fn ended(reply: &Reply) -> Result<Ended, ClientError> {
    let small = |key| reply.number(key).ok().and_then(|number| u8::try_from(number).ok());
    match reply.code {
        Code::Done => match (small("status"), small("signal")) {
            (Some(status), _) => Ok(Ended::Status(status)),
            (None, Some(signal)) => Ok(Ended::Signal(signal)),
            (None, None) => Err(ClientError::unexpected(reply)),
        },
        Code::ActionEnded => Ok(Ended::Ended(reply.message().to_owned())),
        _ => Err(ClientError::from_reply(reply.clone())),
    }
}
