// waymark completion: what a shell offers after `waymark`, made from the commands that are there.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/commands.h"

namespace waymark::cli {
namespace {

struct Word {
  std::string word;
  std::string purpose;
};
struct Place {
  std::string path;          // "jobs list"; empty: waymark itself
  std::vector<Word> commands;
  std::vector<Word> options;
};

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

void walk(CLI::App& app, const std::string& path, std::vector<Place>& places) {
  Place place{path, {}, {}};
  for (CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) place.options.push_back({"--" + name, first_line(option->get_description())});
    for (const std::string& name : option->get_snames()) place.options.push_back({"-" + name, first_line(option->get_description())});
  }
  const std::vector<CLI::App*> commands = app.get_subcommands([](CLI::App*) { return true; });
  for (CLI::App* command : commands) place.commands.push_back({command->get_name(), first_line(command->get_description())});
  places.push_back(std::move(place));
  for (CLI::App* command : commands) walk(*command, path.empty() ? command->get_name() : path + " " + command->get_name(), places);
}

std::string joined(const Place& place) {
  std::string all;
  for (const auto* words : {&place.commands, &place.options}) {
    for (const Word& word : *words) all += (all.empty() ? "" : " ") + word.word;
  }
  return all;
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// Which command the words so far have come to: bash and zsh have the same words for it.
std::string find_place(const std::vector<Place>& places, const std::string& words) {
  std::string text = "  local place= word\n  for word in " + words + "; do\n    case \"$place $word\" in\n      ";
  bool first = true;
  for (const Place& place : places) {
    if (place.path.empty()) continue;
    text += (first ? "" : "|") + quoted((place.path.find(' ') == std::string::npos ? " " : "") + place.path);
    first = false;
  }
  return text + ") place=\"${place:+$place }$word\" ;;\n    esac\n  done\n";
}

std::string bash(const std::vector<Place>& places) {
  std::string text = "# waymark's completion for bash: source it, or put it into ~/.local/share/bash-completion/completions/waymark\n"
                     "_waymark() {\n" +
                     find_place(places, "\"${COMP_WORDS[@]:1:COMP_CWORD-1}\"") + "  local words=\n  case \"$place\" in\n";
  for (const Place& place : places) text += "    " + quoted(place.path) + ") words=" + quoted(joined(place)) + " ;;\n";
  return text + "  esac\n  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n}\n"
                "complete -o default -F _waymark waymark\n";
}

std::string zsh(const std::vector<Place>& places) {
  std::string text = "#compdef waymark\n"
                     "# waymark's completion for zsh: put it into a directory of $fpath as _waymark\n"
                     "_waymark() {\n" +
                     find_place(places, "\"${(@)words[2,CURRENT-1]}\"") + "  local -a offered\n  case \"$place\" in\n";
  for (const Place& place : places) {
    text += "    " + quoted(place.path) + ") offered=(";
    for (const auto* words : {&place.commands, &place.options}) {
      for (const Word& word : *words) {
        std::string purpose = word.purpose;
        std::ranges::replace(purpose, ':', ';');
        text += "\n      " + quoted(word.word + ":" + purpose);
      }
    }
    text += ") ;;\n";
  }
  return text + "  esac\n  _describe -t commands waymark offered\n  _files\n}\n"
                "if [ \"$funcstack[1]\" = _waymark ]; then _waymark \"$@\"; else compdef _waymark waymark; fi\n";
}

std::string fish(const std::vector<Place>& places) {
  std::string text = "# waymark's completion for fish: put it into ~/.config/fish/completions/waymark.fish\n"
                     "function __waymark_at\n"
                     "  set -l place\n"
                     "  set -l words (commandline -opc)\n"
                     "  set -e words[1]\n"
                     "  for word in $words\n"
                     "    switch (string trim -- \"$place $word\")\n"
                     "      case";
  for (const Place& place : places) {
    if (!place.path.empty()) text += " " + quoted(place.path);
  }
  text += "\n        set place (string trim -- \"$place $word\")\n    end\n  end\n  test \"$place\" = \"$argv\"\nend\n";
  for (const Place& place : places) {
    const std::string at = "complete -c waymark -n " + quoted("__waymark_at " + (place.path.empty() ? "''" : place.path));
    for (const Word& word : place.commands) text += at + " -f -a " + quoted(word.word) + " -d " + quoted(word.purpose) + "\n";
    for (const Word& word : place.options) {
      const bool is_long = word.word.starts_with("--");
      text += at + (is_long ? " -l " : " -s ") + quoted(word.word.substr(is_long ? 2 : 1)) + " -d " + quoted(word.purpose) + "\n";
    }
  }
  return text;
}

}  // namespace

void add_completion(CLI::App& app, int& exit_code) {
  const auto shell = std::make_shared<std::string>();
  CLI::App& c = add_command(app, "completion", "Print what makes a shell complete this command's words",
                            "Examples:\n"
                            "  waymark completion bash > ~/.local/share/bash-completion/completions/waymark\n"
                            "  waymark completion zsh > ~/.zfunc/_waymark\n"
                            "  waymark completion fish > ~/.config/fish/completions/waymark.fish\n\n"
                            "Exit codes: 0 done; 2 the command line is wrong");
  c.add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->type_name("SHELL")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  on_run(c, exit_code, [shell, &app] {
    std::vector<Place> places;
    walk(app, "", places);
    return print(*shell == "bash" ? bash(places) : *shell == "zsh" ? zsh(places) : fish(places));
  });
}

}  // namespace waymark::cli
