"""Tab completion in bash. Hydra's own script knows `python FILE.py` and installed programs, but not `python -m`; so this
asks Hydra as if pgolf were such a program, and leaves every other use of python to bash.
"""

BASH = """\
_pgolf() {
    [[ $COMP_LINE == *" -m pgolf.run "* ]] || return
    local choices=$(COMP_LINE="pgolf ${COMP_LINE#* -m pgolf.run }" "${COMP_WORDS[0]}" -m pgolf.run -sc query=bash 2>/dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _pgolf python python3"""
