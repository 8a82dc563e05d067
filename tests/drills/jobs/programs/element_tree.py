"""xml.etree: a file is parsed into a tree."""

import xml.etree.ElementTree as ElementTree

root = ElementTree.parse("tree.xml").getroot()
print(len(root), sum(int(item.get("amount")) for item in root.iter("item")))
