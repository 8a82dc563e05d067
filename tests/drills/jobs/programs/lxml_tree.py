"""lxml: a file is parsed into a tree, and searched."""

import lxml.etree

root = lxml.etree.parse("tree.xml").getroot()
print(len(root), int(root.xpath("sum(//item/@amount)")))
