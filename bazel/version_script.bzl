"""Turns the list of exported names into a linker version script."""

def version_script(name, names, node):
    """A version script with one node.

    Args:
      name: the script's file name.
      names: a text file, one symbol a line; # begins a comment.
      node: the version that the symbols get, as in name@@NODE.
    """
    native.genrule(
        name = name + "_gen",
        srcs = [names],
        outs = [name],
        cmd = """
            {
                echo '%s {'
                echo '  global:'
                sed -e 's/#.*//' -e '/^[[:space:]]*$$/d' -e 's/^/    /' -e 's/$$/;/' $<
                echo '  local: *;'
                echo '};'
            } > $@
        """ % node,
    )
