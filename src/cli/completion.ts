/** `novacron completion bash|zsh|fish` */
import { Effect } from "effect"
import { Argument, Command } from "effect/cli"
import { Surroundings } from "./output.ts"

/** `tree` is the whole command line, which this command is itself a part of. */
export const makeCompletion = (tree: () => Command.Command.Any) =>
  Command.make(
    "completion",
    {
      shell: Argument.Literals("shell", ["bash", "zsh", "fish"]).pipe(Argument.withDescription("The shell"))
    },
    Effect.fnUntraced(function* ({ shell }) {
      const { out } = yield* Surroundings
      const { Completions } = yield* Effect.promise(() => import("effect/cli"))
      const script = Completions.generate("novacron", shell, Completions.fromCommand(tree()))
      // Its head names a flag that we have as a command.
      out(script.replaceAll("novacron --completions ", "novacron completion "))
    })
  ).pipe(
    Command.withDescription("Print a completion script"),
    Command.withExamples([
      { command: "source <(novacron completion bash)", description: "For this shell" },
      {
        command: "novacron completion fish > ~/.config/fish/completions/novacron.fish",
        description: "For good"
      }
    ])
  )
