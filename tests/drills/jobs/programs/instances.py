"""classes: a million small objects in a tree."""


class Node:
    def __init__(self, key):
        self.key = key
        self.children = []


nodes = [Node(0)]
for key in range(1, 1_000_000):
    node = Node(key)
    nodes[key // 3].children.append(node)
    nodes.append(node)
print(sum(len(node.children) for node in nodes), nodes[-1].key)
